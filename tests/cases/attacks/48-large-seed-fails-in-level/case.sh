#!/bin/bash
# A seed of 2^32 (a time stamp in milliseconds, say) is accepted, and level fails with a traceback after all of the teacher work; it must be refused at the start, or work.
PA=${PARITYALIGN:?path of the parityalign executable}; PY=$(dirname "$PA")/python; T=$(mktemp -d); trap 'rm -rf "$T"' EXIT; cd "$T"
"$PY" - <<'P'
from parityalign.demo import generate as g
from pathlib import Path
g.POOL_PICTURES=6; g.TEST_PICTURES=1; g.write_demo_data(Path("d"),0,lambda *a:None)
P
printf 'run: r\nseed: 4294967296\nteacher: embedded:teacher\nstudent: embedded:student\ntasks:\n  okvqa: {images: d/pool/okvqa}\nlevel: {max_steps: 1, batch_size: 4}\nannotate: {max_new_tokens: 32}\n' > r.yaml
OMP_NUM_THREADS=1 timeout 300 "$PA" run r.yaml >out 2>&1 </dev/null; rc=$?
if grep -q Traceback out; then echo "accepted, then after annotate and identify: $(tail -1 out)"; exit 1; fi
echo "ok: rc $rc"; exit 0
