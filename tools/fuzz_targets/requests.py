"""Requests to the viewer, with its cookie: answered or refused with a status, and no file of the machine is sent."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

from hypothesis import strategies as st
from starlette.testclient import TestClient

from fuzz_targets._drawn import broken, of_pieces
from parityalign.viewer.app import application
from parityalign.viewer.trying import Trials
from parityalign.viewer.watching import watch_runs

HERE = "http://127.0.0.1:8000"
SECRET = "not in any record"
_GOOD = [
    "/0/pairs?words=tea&verdict=neither&sort=verdict&page=2",
    "/0/pairs/p1?part",
    "/0/pictures/i1?large",
    "/0/tests?change=lost&page=1",
    "/0/test-pictures/0",
    "/0/try?pair=p1",
    "/0/try/pictures/i1",
    "/compare?one=0&other=0",
    "/static/style.css",
    "/0/run",
]
_PIECES = ["/", "..", "%2e%2e%2f", "%00", "?", "&", "=", "#", "%", "0", "-1", "9" * 300, "pairs", "run.yaml"]
_PIECES += ["secret.txt", "words=", "page=", "least=nan", "most=1e999", "mark=pending", "' OR 1=1 --", "%ff"]
_PIECES += ["\u202e", "{{", "token="]
_FORMS = [
    "pair_id=p1&mark=correct&answer=tea&seen=",
    "pair=p1&words=What&who=before&task=none",
    "picture=..%2frun.yaml&words=What&who=teacher&task=vqa",
]
INPUTS = st.tuples(
    broken(_GOOD, _PIECES) | of_pieces(_PIECES),
    st.sampled_from(("GET", "POST", "HEAD", "PUT")),
    broken(_FORMS, _PIECES) | of_pieces(_PIECES),
)


def check(given: tuple[str, str, str]) -> None:
    """A fault of the server passes through to here."""
    place, method, body = given
    address = "/" + quote(place, safe="/?&=%+:,#").lstrip("/")[:20_000]
    answer = _client().request(method, address, content=body.encode("utf-8", "replace"), follow_redirects=False)
    if answer.status_code >= 500 or SECRET in answer.text:
        raise ValueError(f"{method} {address[:200]}: {answer.status_code}, {answer.text[:200]}")


@cache
def _client() -> TestClient:
    folder = Path(mkdtemp(prefix="parityalign-fuzz-"))
    (folder / "secret.txt").write_text(SECRET)
    (folder / "run.yaml").write_text("run: .\nteacher: fake:t.json\nstudent: fake:s.json\ntasks: {vqa: {images: x}}\n")
    pair = {"pair_id": "p1", "image_id": "i1", "image": "", "task": "vqa", "question": "What?", "answer": "tea"}
    rows = {
        "pairs/pairs.jsonl": pair | {"teacher": "t"},
        "images/accepted.jsonl": {"image_id": "i1", "path": "secret.txt", "task": "vqa"},
        "tests/vqa/questions.jsonl": {"question_id": "1", "image": "secret.txt", "question": "Q?", "answers": ["a"]},
        "answers/before.jsonl": {"item_id": "vqa:1", "text": "b"},
    }
    for name, row in rows.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(json.dumps(row) + "\n")
    runs = watch_runs([folder])
    runs[0].wait()
    app = application(runs, Trials())
    client = TestClient(app, base_url=HERE, headers={"origin": HERE})
    client.get("/", params={"token": app.token})
    return client
