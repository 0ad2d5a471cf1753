#!/bin/bash
# A server (or a proxy in front of it) that repeats the key in a reply or its finish_reason: no file may hold it (README: no file or message ever holds the key).
. "$(dirname "${BASH_SOURCE[0]}")/../_lib/lib.sh"
serve <<'P'
def evil(self,j):
    k=self.headers.get("Authorization","")[7:]
    self.ok("Question: What is %s for? Answer: tea"%k)
P
export PARITYALIGN_API_KEY=sk-TOPSECRET77; timeout 60 "$PA" annotate r >out 2>&1 </dev/null; rc=$?
if grep -rq sk-TOPSECRET77 out r; then echo "the key stands in: $(grep -rl sk-TOPSECRET77 out r | tr "\n" " ")"; exit 1; fi
if [ $rc -gt 2 ]; then echo "ended with $rc: $(tail -1 out)"; exit 1; fi
echo "ok: rc $rc"; exit 0
