"""An executable that stands in for a program that serves models: a real server in its own process, told how to fail."""

import json
import sys
from pathlib import Path

SCRIPT = '''#!{python} -I
"""Takes vLLM's command line, answers like an OpenAI-compatible server, fails as TOLD."""
import json, os, signal, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOLD, HERE = json.loads({told!r}), Path({here!r})
given = sys.argv[1:]
if given == ["--version"]:
    print("0.99.1"); sys.exit()


def note(file, text):
    with (HERE / file).open("a") as kept:
        kept.write(text + "\\n")


def lines(file):
    return (HERE / file).read_text().splitlines() if (HERE / file).exists() else []


note("started", json.dumps(given))
note("pids", str(os.getpid()))
if TOLD.get("stubborn"):
    signal.signal(signal.SIGTERM, lambda *_: None)
if TOLD.get("child"):
    child = os.fork()
    if not child:
        time.sleep(600)
        os._exit(0)
    note("pids", str(child))
said = TOLD.get("says", [])
if said and len(lines("started")) <= TOLD.get("fails", 10**6):
    print("\\n".join(said), flush=True)
    sys.exit(1)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        ready = not TOLD.get("never_ready")
        name = given[given.index("--served-model-name") + 1] if "--served-model-name" in given else ""
        self.send(200 if ready else 503, {{"data": [{{"id": name}}]}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        image, text = "", ""
        for part in body["messages"][0]["content"]:
            image = part.get("image_url", {{}}).get("url", image)
            text = part.get("text", text)
        if len(lines("asked")) in TOLD.get("dies_after", []) and str(len(lines("asked"))) not in lines("died"):
            note("died", str(len(lines("asked"))))
            os.kill(os.getpid(), signal.SIGKILL)
        note("asked", json.dumps([text, len(image)]))
        reply = TOLD.get("reply") or f"{{text[-40:]}} {{len(image)}}"
        message = {{"role": "assistant", "content": reply}}
        usage = {{"prompt_tokens": len(image), "completion_tokens": 2}}
        self.send(200, {{"choices": [{{"message": message, "finish_reason": "stop"}}], "usage": usage,
                        "model": body["model"]}})

    def send(self, status, found):
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


ThreadingHTTPServer(("127.0.0.1", int(given[given.index("--port") + 1])), Answer).serve_forever()
'''


def program(folder: Path, name: str = "vllm", **told: object) -> Path:
    """Writes the executable; what it was started with, and asked, lies beside it in `started`, `pids` and `asked`.

    Args:
        folder: Where.
        name: Its file name.
        told: `says` and `fails`: lines that it writes, to end, the first so many times; `never_ready`; `dies_after`:
            how many questions; `stubborn`: it does not end when asked to; `child`: it has one; `reply`: what it says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(SCRIPT.format(python=sys.executable, told=json.dumps(told), here=str(folder)))
    path.chmod(0o755)
    return path


NVIDIA_SMI = """#!{python} -I
import sys
print({apps!r} if "apps" in sys.argv[1] else {gpus!r})
sys.exit({status})
"""


def nvidia_smi(folder: Path, gpus: list[str], apps: list[str], status: int = 0) -> None:
    """Writes what stands in for NVIDIA's program.

    Args:
        folder: Where; has to be on PATH.
        gpus: Lines of uuid, index, name, MiB free, used and in all.
        apps: Lines of a GPU's uuid, a process' number and name, MiB that it holds.
        status: With which it ends.
    """
    path = folder / "nvidia-smi"
    told = {"gpus": "\n".join(gpus), "apps": "\n".join(apps), "status": status}
    path.write_text(NVIDIA_SMI.format(python=sys.executable, **told))
    path.chmod(0o755)


def noted(folder: Path, file: str) -> list[str]:
    """The lines of one of its notes."""
    return (folder / file).read_text().splitlines() if (folder / file).exists() else []
