"""An OpenAI-compatible server that answers as a case says: its file defines `evil(self, j)`, the reply to a request
with a picture, and may redefine other methods of H."""
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
own = {}
exec(open(sys.argv[1], encoding="utf-8").read(), globals(), own)
for name, method in own.items(): setattr(H, name, method)
s=ThreadingHTTPServer(("127.0.0.1",0),H); s.daemon_threads=True; open("port","w").write(str(s.server_address[1])); threading.Timer(300,s.shutdown).start(); s.serve_forever()
