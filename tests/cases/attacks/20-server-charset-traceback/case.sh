#!/bin/bash
# A server's error page in a charset that is no text encoding (hex, zlib, rot13, undefined, idna, utf-32 ...): a message, no traceback.
. "$(dirname "${BASH_SOURCE[0]}")/../_lib/lib.sh"
serve <<'P'
def evil(self,j):
    b=b"oops"; self.raw(b"HTTP/1.1 500 E\r\nContent-Type: text/plain; charset=idna\r\nContent-Length: %d\r\n\r\n"%len(b)+b)
P
timeout 100 "$PA" annotate r >out 2>&1 </dev/null; rc=$?
if grep -q Traceback out; then echo "traceback instead of a message: $(grep -E "Error" out | tail -1)"; exit 1; fi
echo "ok: rc $rc"; exit 0
