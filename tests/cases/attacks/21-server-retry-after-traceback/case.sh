#!/bin/bash
# Retry-After with a year that no clock has: must be passed over, no traceback.
. "$(dirname "${BASH_SOURCE[0]}")/../_lib/lib.sh"
serve <<'P'
def evil(self,j):
    self.raw(b"HTTP/1.1 429 Slow\r\nRetry-After: Mon, 01 Jan 99999999999999999999 00:00:00 GMT\r\nContent-Length: 4\r\n\r\nslow")
P
timeout 100 "$PA" annotate r >out 2>&1 </dev/null; rc=$?
if grep -q Traceback out; then echo "traceback instead of a message: $(grep -E "Error" out | tail -1)"; exit 1; fi
echo "ok: rc $rc"; exit 0
