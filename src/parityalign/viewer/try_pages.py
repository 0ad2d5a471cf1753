"""A page to put one's own picture and question to the student before and after levelling, and to the teacher."""

from collections.abc import Mapping
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from parityalign.core import printable
from parityalign.data import Unfit
from parityalign.viewer.choosing import place_of, rows_at
from parityalign.viewer.pages import body_of, fields_in, page, run_of
from parityalign.viewer.pictures import fault_of
from parityalign.viewer.tables import Row
from parityalign.viewer.trying import MAX_BYTES, Trials
from parityalign.viewer.watching import WatchedRun

WHO: Mapping[str, str] = {"before": "student before", "after": "student after", "teacher": "teacher"}
_LONGEST_FORM = 20_000
_LONGEST_QUESTION = 2000


def routes() -> list[Route]:
    """The addresses of this page."""
    return [
        Route("/{run}/try", show_try),
        Route("/{run}/try/pictures", take_picture, methods=["POST"]),
        Route("/{run}/try/answers", answer, methods=["POST"]),
    ]


def trials_of(request: Request) -> Trials:
    """The models and pictures of this viewer."""
    trials: Trials = request.app.state.trials
    return trials


def show_try(request: Request) -> Response:
    """The form, with the picture and question of a pair or test question where the address names one."""
    run = run_of(request)
    kind, row = _named(run, request.query_params)
    address = _address(request.path_params["run"], kind, row)
    facts = {
        "run": run,
        "here": "try",
        "who": WHO,
        "tasks": list(run.config.tasks) if run.config else [],
        "kind": kind,
        "row": row,
        "named": request.query_params.get(kind, "") if row else "",
        "picture": address,
        "max_bytes": MAX_BYTES,
    }
    return page(request, "try.html", facts)


async def take_picture(request: Request) -> Response:
    """Takes the bytes of a picture, and says where it can be seen."""
    run_of(request)
    content = await body_of(request, MAX_BYTES)
    return await run_in_threadpool(_kept, request, content)


def _kept(request: Request, content: bytes) -> Response:
    try:
        name = trials_of(request).keep(content)
    except Unfit as unfit:
        problem = f"This is no picture that can be used: {printable(str(unfit))}"
        return JSONResponse({"problem": problem}, status_code=400)
    except OSError as refused:
        problem = f"The picture could not be kept: {refused.strerror}. Free some space and send it again."
        return JSONResponse({"problem": problem}, status_code=507)
    return JSONResponse({"picture": name})


async def answer(request: Request) -> Response:
    """Asks one model, and says what it answered or why it did not."""
    run, said = run_of(request), fields_in(await body_of(request, _LONGEST_FORM))
    return await run_in_threadpool(_answered, request, run, said)


def _answered(request: Request, run: WatchedRun, said: Mapping[str, str]) -> Response:
    question, who = said.get("words", "").strip(), said.get("who", "")
    path = _picture(request, run, said)
    if path is None or not question or len(question) > _LONGEST_QUESTION or who not in WHO:
        raise HTTPException(400, "a picture, a question and one of the models are needed")
    if fault := fault_of(path):
        return JSONResponse({"text": "", "problem": f"the picture cannot be used: {printable(fault)}", "seconds": 0})
    found = trials_of(request).ask(run, who, path, question, said.get("task", ""))
    told = {"text": printable(found.text), "problem": printable(found.problem), "seconds": round(found.seconds, 1)}
    return JSONResponse(told)


def _picture(request: Request, run: WatchedRun, said: Mapping[str, str]) -> Path | None:
    """The file of the picture that a form names: one that was sent, or one of the run."""
    if said.get("picture"):
        return trials_of(request).picture(said["picture"])
    _, row = _named(run, said)
    return Path(row["image"]) if row else None


def _named(run: WatchedRun, said: Mapping[str, str]) -> tuple[str, Row | None]:
    """The pair or test question that is named, if there is one."""
    index = run.index()
    if index and (pair := said.get("pair")):
        place = place_of(index, pair)
        return "pair", rows_at(index, "pairs", [place])[0] if place is not None else None
    place_said = said.get("question", "")
    if index and place_said.isdecimal() and len(place_said) < 10:
        return "question", next(iter(rows_at(index, "questions", [int(place_said)])), None)
    return "", None


def _address(run: str, kind: str, row: Row | None) -> str:
    """Where the picture of a row can be seen."""
    if row is None:
        return ""
    place = f"pictures/{row['image_id']}" if kind == "pair" else f"test-pictures/{row['place']}"
    return f"/{run}/{place}?large"
