#!/bin/bash
# One letter of an answer in pairs/pairs.jsonl changes (same size); then level is done again with another setting. It must not train on the changed pair under the old pairs' digest.
PA=${PARITYALIGN:?path of the parityalign executable}; PY=$(dirname "$PA")/python; T=$(mktemp -d); trap 'rm -rf "$T"' EXIT; cd "$T"
"$PY" - <<'P'
from parityalign.demo import generate as g
from pathlib import Path
g.POOL_PICTURES=6; g.TEST_PICTURES=1; g.write_demo_data(Path("d"),0,lambda *a:None)
P
printf 'run: r\nteacher: embedded:teacher\nstudent: embedded:student\ntasks:\n  okvqa: {images: d/pool/okvqa}\nlevel: {max_steps: 2, batch_size: 4}\nannotate: {max_new_tokens: 32}\n' > r.yaml
export OMP_NUM_THREADS=1; timeout 300 "$PA" run r.yaml >out 2>&1 </dev/null || { echo "case could not run"; exit 1; }
"$PY" - <<'P'
import json
p="r/pairs/pairs.jsonl"; L=open(p).read().splitlines(); g={json.loads(l)["pair_id"] for l in open("r/verdicts/gaps.jsonl")}
i=next(i for i,l in enumerate(L) if json.loads(l)["pair_id"] in g); a=json.loads(L[i])["answer"]; b=("z" if a[0]!="z" else "y")+a[1:]
L[i]=L[i].replace(json.dumps(a),json.dumps(b)); open(p,"w").write("\n".join(L)+"\n"); 
P
sed -i 's/max_steps: 2/max_steps: 3/' r.yaml; timeout 300 "$PA" run r.yaml >out 2>&1 </dev/null; rc=$?
d=$(sha256sum r/pairs/pairs.jsonl | cut -c1-64)
if [ $rc = 0 ] && ! grep -q "$d" r/pairs/manifest.json; then echo "the student was trained on a changed pair, and every manifest names the digest of the unchanged ones ($(grep '^level: done again' out | cut -c1-60))"; exit 1; fi
echo "ok: noticed (rc $rc)"; exit 0
