#!/bin/bash
# A model folder whose tokenizer.json lacks its model (cut or edited): refused in words at the start.
PA=${PARITYALIGN:?path of the parityalign executable}; PY=$(dirname "$PA")/python; T=$(mktemp -d); trap "rm -rf \"$T\"" EXIT; cd "$T"; export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
mkdir pics; "$PY" - <<P
import shutil,json,parityalign
from pathlib import Path
from PIL import Image
shutil.copytree(Path(parityalign.__file__).parent/"demo"/"models"/"student","m")
for i in range(2): Image.effect_noise((64+9*i,64),99).convert("RGB").save(f"pics/{i}.png")
def ed(f,fn): p=Path("m")/f; j=json.loads(p.read_text()); fn(j); p.write_text(json.dumps(j))
ed("tokenizer.json",lambda j: j.pop("model"))
P
printf "run: r\nteacher: hf:./m\nstudent: embedded:student\ntasks:\n  okvqa: {images: pics}\nannotate: {max_new_tokens: 4}\n" > r.yaml
timeout 100 "$PA" run r.yaml >out 2>&1 </dev/null; rc=$?
if [ $rc = 124 ]; then echo "HANG: 100 s without an end"; exit 1; fi
if grep -q Traceback out; then echo "traceback$(grep -q "intake textvqa\|intake okvqa" out && echo " (after intake)"): $(tail -1 out | cut -c1-140)"; exit 1; fi
echo "ok: rc $rc: $(grep parityalign: out | head -1 | cut -c1-120)"; exit 0

