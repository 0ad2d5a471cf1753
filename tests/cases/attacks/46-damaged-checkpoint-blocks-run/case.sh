#!/bin/bash
# Level was killed (power cut); the newest checkpoint's optimizer.pt is empty although `complete` stands beside it (nothing is fsynced). The same command must go on from the checkpoint before, or from the beginning.
PA=${PARITYALIGN:?path of the parityalign executable}; PY=$(dirname "$PA")/python; T=$(mktemp -d); trap 'rm -rf "$T"' EXIT; cd "$T"
cat > k.py <<'P'
import subprocess,os,sys,time
from pathlib import Path
from parityalign.demo import generate as g
g.POOL_PICTURES=6; g.TEST_PICTURES=1; g.write_demo_data(Path("d"),0,lambda *a:None)
Path("r.yaml").write_text("run: r\nteacher: embedded:teacher\nstudent: embedded:student\ntasks:\n  okvqa: {images: d/pool/okvqa}\nlevel: {max_steps: 80, batch_size: 4}\nannotate: {max_new_tokens: 32}\n")
p=subprocess.Popen([sys.argv[1],"run","r.yaml"],stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL,stdin=subprocess.DEVNULL); t=time.time(); w=Path("r/.student.training")
while p.poll() is None and time.time()-t<300:
    if len(list(w.glob("checkpoint-*/complete")))>=2: p.kill(); break
    time.sleep(.005)
p.wait(); c=max(w.glob("checkpoint-*"),key=lambda x:int(x.name[11:])) if w.exists() else None
c=[x for x in sorted(w.glob("checkpoint-*"),key=lambda x:int(x.name[11:])) if (x/"complete").exists()][-1]
(c/"optimizer.pt").write_bytes(b""); print(c)
P
OMP_NUM_THREADS=1 "$PY" k.py "$PA" >k.out 2>&1 || { echo "case could not run: $(tail -1 k.out)"; exit 1; }
for i in 1 2; do OMP_NUM_THREADS=1 timeout 300 "$PA" run r.yaml >out 2>&1 </dev/null; rc=$?; done
if [ $rc = 0 ]; then echo "ok: gone on (rc 0)"; exit 0; fi
echo "the run cannot go on (twice rc $rc); all that it says is: $(grep -v -E '^(level|intake|annotate|identify)' out | tail -1 | cut -c1-120)"; exit 1
