#!/bin/bash
# A gzip bomb (2 MB that are 2 GB) as a reply: must be cut off at some size, no traceback, no memory full.
PA=${PARITYALIGN:?path of the parityalign executable}; PY=$(dirname "$PA")/python; T=$(mktemp -d); trap 'kill $SP 2>/dev/null; rm -rf "$T"' EXIT; cd "$T"
mkdir r pics; "$PY" -c 'from PIL import Image; [Image.effect_noise((64+9*i,64),99).convert("RGB").save(f"pics/{i}.png") for i in range(2)]'
cat > s.py <<'P'
import json,sys,threading
from http.server import *
class H(BaseHTTPRequestHandler):
    protocol_version="HTTP/1.1"
    def log_message(self,*a): pass
    def raw(self,b): self.wfile.write(b); self.wfile.flush()
    def ok(self,text,**k):
        b=json.dumps({"choices":[{"message":{"role":"assistant","content":text},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2},**k}).encode()
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"%len(b)+b)
    def do_GET(self): b=json.dumps({"data":[{"id":"m"}]}).encode(); self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"%len(b)+b)
    def do_POST(self):
        j=self.rfile.read(int(self.headers["Content-Length"])).decode()
        if "colours are in the picture" in j: return self.ok("p%d"%len(j))
        self.evil(j)
    def evil(self,j):
        import zlib
        if not hasattr(H,"bomb"):
            o=zlib.compressobj(9,zlib.DEFLATED,31); z=b" "*(1<<20); H.bomb=b"".join(o.compress(z) for _ in range(2048))+o.flush()
        self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"%len(H.bomb)+H.bomb)
s=ThreadingHTTPServer(("127.0.0.1",0),H); s.daemon_threads=True; open("port","w").write(str(s.server_address[1])); threading.Timer(300,s.shutdown).start(); s.serve_forever()
P
"$PY" s.py 2>/dev/null & SP=$!; while [ ! -s port ]; do sleep 0.1; done
printf "run: .\nteacher: http://127.0.0.1:$(cat port)/v1\nstudent: embedded:student\ntasks:\n  textvqa: {images: ../pics}\nserver: {max_attempts: 2, backoff: 0.05, max_concurrency: 2}\n" > r/run.yaml
"$PA" intake r >/dev/null 2>&1 </dev/null
ulimit -v 5000000; timeout 300 /usr/bin/time -f "%M" -o rss "$PA" annotate r >out 2>&1 </dev/null; rc=$?; m=$(($(tail -1 rss)/1024))
if grep -q -E "Traceback|MemoryError" out || [ $rc -gt 100 ]; then echo "a 2 MB reply fills the memory (peak $m MB under a limit of 5 GB, rc $rc): $(grep -E "Error" out | tail -1)"; exit 1; fi
if [ $m -gt 1500 ]; then echo "a 2 MB reply takes $m MB of memory"; exit 1; fi
echo "ok: rc $rc, $m MB"; exit 0
