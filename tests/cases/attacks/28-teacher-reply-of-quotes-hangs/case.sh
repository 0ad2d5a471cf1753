#!/bin/bash
# A reply of 4 MB of quotation marks: reading it takes time that grows with its square. It must be read or refused within a minute.
. "$(dirname "${BASH_SOURCE[0]}")/../_lib/lib.sh"
serve <<'P'
def evil(self,j):
    self.ok("Question: What is it?\nAnswer: "+chr(34)*4_000_000)
P
timeout 100 "$PA" annotate r >out 2>&1 </dev/null; rc=$?
if [ $rc = 124 ]; then echo "HANG: a reply of 4 MB was still being read after 100 s"; exit 1; fi
if grep -q Traceback out; then echo "traceback: $(tail -1 out)"; exit 1; fi
echo "ok: rc $rc"; exit 0
