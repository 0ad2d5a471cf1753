"""A small hub on this machine, which serves folders the way the Hugging Face hub does, and keeps account."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
STATE = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)(/(?P<what>revision|tree)/(?P<revision>[^/?]+))?")


class Hub:
    """What is published and what was asked.

    Attributes:
        models: Name -> {branch, tag or commit: folder}; `main` has to be there.
        gated: Names whose files nobody may read.
        asked: Every request, as `METHOD path`.
    """

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Path]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.address = ""

    def commit(self, name: str, revision: str = "main") -> str:
        """The commit of a branch, the same for the same folder."""
        return hashlib.sha1(str(self.models[name][revision]).encode()).hexdigest()

    def folder(self, name: str, revision: str) -> Path | None:
        """Where the files of a branch, tag or commit lie."""
        branches = self.models[name]
        by_commit = {self.commit(name, branch): folder for branch, folder in branches.items()}
        return branches.get(revision) or by_commit.get(revision)


class Answer(BaseHTTPRequestHandler):
    """Answers one request."""

    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        found = FILE.match(self.path) or STATE.match(self.path)
        name = found["name"] if found else ""
        if name not in self.hub.models:
            return self._refuse(404, "RepoNotFound")
        revision = found["revision"] or "main"
        folder = self.hub.folder(name, revision)
        if folder is None:
            return self._refuse(404, "RevisionNotFound")
        if "file" not in found.groupdict():
            return self._state(name, folder, revision, tree=found["what"] == "tree")
        if name in self.hub.gated:
            return self._refuse(403, "GatedRepo")
        if not (folder / found["file"]).is_file():
            return self._refuse(404, "EntryNotFound")
        return self._send((folder / found["file"]).read_bytes(), commit=revision)

    def _state(self, name: str, folder: Path, revision: str, *, tree: bool) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        if tree:
            listed = [
                {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": "0" * 40}
                for path in files
            ]
            return self._send(json.dumps(listed).encode())
        commit = next(self.hub.commit(name, branch) for branch, at in self.hub.models[name].items() if at == folder)
        return self._send(json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": []}).encode())

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, *, commit: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if commit:
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers while the `with` lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (Answer,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
