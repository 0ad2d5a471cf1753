#!/bin/bash
# The disk fills up while evidence is gathered or the student is saved: words and exit 1 ("make room, then run the same command"), no traceback. Needs root (a small tmpfs).
PA=${PARITYALIGN:?path of the parityalign executable}; PY=$(dirname "$PA")/python; T=$(mktemp -d); trap 'umount "$T/m" 2>/dev/null; rm -rf "$T"' EXIT; cd "$T"
[ "$(id -u)" = 0 ] || { echo "skipped: not root"; exit 0; }
mkdir m; mount -t tmpfs -o size=100M tmpfs m || { echo "skipped: no tmpfs"; exit 0; }
"$PY" - <<'P'
from parityalign.demo import generate as g
from pathlib import Path
g.POOL_PICTURES=6; g.TEST_PICTURES=1; g.write_demo_data(Path("d"),0,lambda *a:None)
P
printf 'run: m/run\nteacher: embedded:teacher\nstudent: embedded:student\ntasks:\n  okvqa: {images: d/pool/okvqa}\nlevel: {max_steps: 2, batch_size: 4, objective: discrepancy}\nannotate: {max_new_tokens: 32}\n' > r.yaml
n=0; bad=0; said=; export OMP_NUM_THREADS=1
for size in 60k 100k 250k 2000k 4000k 8000k 16000k; do
  mount -o remount,size=$size m; timeout 300 "$PA" run r.yaml >out 2>&1 </dev/null; rc=$?; n=$((n+1))
  grep -q Traceback out && { bad=$((bad+1)); said="$said $size: $(tail -1 out | cut -c1-110);"; }
  [ $rc = 0 ] && break
done
[ $bad = 0 ] && { echo "ok: no traceback in $n runs on a full disk"; exit 0; }
echo "$bad of $n runs on a full disk ended in a traceback:$said"; exit 1
