#!/bin/bash
# A folder with somebody's images/ and a `.lock` of another program (uv leaves one in every venv) is no run folder; its images must stay.
PA=${PARITYALIGN:?path of the parityalign executable}; PY=$(dirname "$PA")/python; T=$(mktemp -d); trap 'rm -rf "$T"' EXIT; cd "$T"
"$PY" - <<'P'
from parityalign.demo import generate as g
from pathlib import Path
g.POOL_PICTURES=3; g.TEST_PICTURES=1; g.write_demo_data(Path("d"),0,lambda *a:None)
P
mkdir -p box/images; cp d/pool/textvqa/* box/images/; touch box/.lock; had=$(ls box/images | wc -l)
printf 'run: box\nteacher: embedded:teacher\nstudent: embedded:student\ntasks:\n  textvqa: {images: d/pool/okvqa}\n' > r.yaml
timeout 60 "$PA" run r.yaml >out 2>&1 </dev/null; rc=$?
left=$(ls box/images/*.png box/images/*.jpg 2>/dev/null | wc -l)
if [ "$left" = "$had" ]; then echo "ok: $left files still there (rc $rc)"; exit 0; fi
echo "DATA LOSS: $left of $had foreign files left in box/images, only because the folder held a .lock (rc $rc)"; exit 1
