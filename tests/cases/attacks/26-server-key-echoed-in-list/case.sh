#!/bin/bash
# A server that repeats the key in its list of models: no message may show the key (README: no file or message ever holds the key).
. "$(dirname "${BASH_SOURCE[0]}")/../_lib/lib.sh"
serve <<'P'
def do_GET(self): b=json.dumps({"data":[{"id":self.headers.get("Authorization","x")[7:]},{"id":"b"}]}).encode(); self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"%len(b)+b)
def evil(self,j):
    self.ok("x")
P
export PARITYALIGN_API_KEY=sk-TOPSECRET77; timeout 60 "$PA" annotate r >out 2>&1 </dev/null; rc=$?
if grep -rq sk-TOPSECRET77 out r; then echo "the key stands in: $(grep -rl sk-TOPSECRET77 out r | tr "\n" " ")- $(grep -h -o ".\{30\}sk-TOPSECRET77" out | head -1)"; exit 1; fi
if [ $rc -gt 2 ]; then echo "ended with $rc: $(tail -1 out)"; exit 1; fi
echo "ok: rc $rc"; exit 0
