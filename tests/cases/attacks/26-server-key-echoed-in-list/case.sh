#!/bin/bash
# A server that repeats the key in its list of models: no message may show the key (README: no file or message ever holds the key).
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
    def do_GET(self): b=json.dumps({"data":[{"id":self.headers.get("Authorization","x")[7:]},{"id":"b"}]}).encode(); self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"%len(b)+b)
    def do_POST(self):
        j=self.rfile.read(int(self.headers["Content-Length"])).decode()
        if "colours are in the picture" in j: return self.ok("p%d"%len(j))
        self.evil(j)
    def evil(self,j):
        self.ok("x")
s=ThreadingHTTPServer(("127.0.0.1",0),H); s.daemon_threads=True; open("port","w").write(str(s.server_address[1])); threading.Timer(300,s.shutdown).start(); s.serve_forever()
P
"$PY" s.py 2>/dev/null & SP=$!; while [ ! -s port ]; do sleep 0.1; done
printf "run: .\nteacher: http://127.0.0.1:$(cat port)/v1\nstudent: embedded:student\ntasks:\n  textvqa: {images: ../pics}\nserver: {max_attempts: 2, backoff: 0.05}\n" > r/run.yaml
"$PA" intake r >/dev/null 2>&1 </dev/null
export PARITYALIGN_API_KEY=sk-TOPSECRET77; timeout 60 "$PA" annotate r >out 2>&1 </dev/null; rc=$?
if grep -rq sk-TOPSECRET77 out r; then echo "the key stands in: $(grep -rl sk-TOPSECRET77 out r | tr "\n" " ")- $(grep -h -o ".\{30\}sk-TOPSECRET77" out | head -1)"; exit 1; fi
echo "ok: rc $rc"; exit 0
