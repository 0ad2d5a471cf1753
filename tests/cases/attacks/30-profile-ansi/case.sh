#!/bin/bash
# A teacher's question with escape sequences (OSC 52 writes the clipboard, CSI clears the screen): `parityalign discrepancy RUN` must not hand them to the terminal.
PA=${PARITYALIGN:?path of the parityalign executable}; PY=$(dirname "$PA")/python; T=$(mktemp -d); trap 'rm -rf "$T"' EXIT; cd "$T"
mkdir pics; "$PY" - <<'P'
import json
from PIL import Image
for i in range(3): Image.effect_noise((64+9*i,64),99).convert("RGB").save(f"pics/{i}.png")
q="What is \x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[31mwritten?"
json.dump({"replies":[{"image":"*","contains":"Reply in this form","text":f"Question: {q}\nAnswer: tea"},{"image":"*","text":"tea"}]},open("teacher.json","w"))
json.dump({"replies":[{"image":"*","text":"no"}]},open("student.json","w"))
P
printf 'run: r\nteacher: fake:teacher.json\nstudent: fake:student.json\ntasks:\n  textvqa: {images: pics}\nannotate: {temperature: 0}\ndiscrepancy: {always: true}\n' > run.yaml
mkdir r; sed -e 's/^run: .*/run: ./' -e 's#fake:#fake:../#' -e 's#images: #images: ../#' run.yaml > r/run.yaml
for s in intake annotate identify discrepancy; do timeout 200 "$PA" $s r >out_$s 2>&1 </dev/null; done
timeout 100 "$PA" discrepancy r >out 2>&1 </dev/null; rc=$?
if grep -q "$(printf '\033')" out; then echo "escape sequences that the teacher wrote reach the terminal: $(grep -m1 "$(printf '\033')" out | cat -v | cut -c1-120)"; exit 1; fi
[ $rc = 0 ] || { echo "case could not run: rc $rc $(tail -1 out)"; exit 1; }
echo "ok: no escape sequence in the list"; exit 0
