#!/bin/bash
# A gzip bomb (2 MB that are 2 GB) as a reply: must be cut off at some size, no traceback, no memory full.
. "$(dirname "${BASH_SOURCE[0]}")/../_lib/lib.sh"
serve "max_concurrency: 2" <<'P'
def evil(self,j):
    import zlib
    if not hasattr(H,"bomb"):
        o=zlib.compressobj(9,zlib.DEFLATED,31); z=b" "*(1<<20); H.bomb=b"".join(o.compress(z) for _ in range(2048))+o.flush()
    self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"%len(H.bomb)+H.bomb)
P
ulimit -v 5000000; timeout 300 /usr/bin/time -f "%M" -o rss "$PA" annotate r >out 2>&1 </dev/null; rc=$?; m=$(($(tail -1 rss)/1024))
if grep -q -E "Traceback|MemoryError" out || [ $rc -gt 100 ]; then echo "a 2 MB reply fills the memory (peak $m MB under a limit of 5 GB, rc $rc): $(grep -E "Error" out | tail -1)"; exit 1; fi
if [ $m -gt 1500 ]; then echo "a 2 MB reply takes $m MB of memory"; exit 1; fi
echo "ok: rc $rc, $m MB"; exit 0
