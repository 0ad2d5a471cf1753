"""The pairs of a run: a list to filter, sort, search and review by keyboard, and each pair on its own."""

import json
from collections.abc import Mapping
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from parityalign.core import UserError, VerdictKind
from parityalign.report import VERDICT_WORDS
from parityalign.stages import Mark
from parityalign.viewer.attention import looks_of
from parityalign.viewer.choosing import MARKS, ORDERS, list_facts, place_of, rows_at
from parityalign.viewer.marking import MarkedMeanwhile, version_of
from parityalign.viewer.pages import body_of, fields_in, page, run_of, still_reading
from parityalign.viewer.pictures import fault_of
from parityalign.viewer.tables import Index, Row
from parityalign.viewer.watching import WatchedRun

VERDICT_NAMES: Mapping[str, str] = {
    VerdictKind.TEACHER_ONLY: "gap",
    VerdictKind.STUDENT_RIGHT: "student right",
    VerdictKind.BOTH: "both right",
    VerdictKind.STUDENT_ONLY: "only the student",
    VerdictKind.NEITHER: "neither right",
    VerdictKind.UNSURE: "unsure",
    VerdictKind.DROPPED: "dropped",
}
"""Each verdict in a word or two, for a badge."""
FILTERS: Mapping[str, str] = {
    "task": "task",
    "verdict": "verdict",
    "kind": "kind of question",
    "reason_code": "dropped because",
    "change": "after levelling",
    "writer": "written by",
}
"""Columns to filter by, with their headings."""
_MEASURES = {
    "confidence gap": "confidence_gap",
    "attention divergence": "attention_divergence",
    "rationale gap": "rationale_gap",
}
_LONGEST_MARK = 20_000
"""Bytes of a form with a mark."""


def routes() -> list[Route]:
    """The addresses of this page."""
    return [
        Route("/{run}/pairs", show_pairs, name="pairs"),
        Route("/{run}/pairs/{pair_id}", show_pair),
        Route("/{run}/marks", add_mark, methods=["POST"]),
    ]


def show_pairs(request: Request) -> Response:
    """A page of the list, with one pair of it large beside it."""
    run = run_of(request)
    index = run.index()
    if index is None:
        return still_reading(request, run, "pairs")
    facts = {
        **_shared(run),
        "here": "pairs",
        **list_facts(request.query_params, index, "pairs", key="pair_id", named="pair", filters=FILTERS),
        "marks": MARKS,
        "orders": [name for name in ORDERS["pairs"] if name not in _MEASURES or _is_known(index, _MEASURES[name])],
        "has_gaps": _is_known(index, "confidence_gap"),
        "reviewed": index.reviewed(),
    }
    return page(request, "pairs.html", facts)


def show_pair(request: Request) -> Response:
    """One pair: a part of a page where a script asks for it, else a page."""
    run = run_of(request)
    row = _row_of(run.index(), request.path_params["pair_id"])
    if row is None:
        raise HTTPException(404, "the run has no such pair")
    alone = "part" not in request.query_params
    return page(request, "pair.html" if alone else "one_pair.html", {**_shared(run), "here": "pairs", "row": row})


async def add_mark(request: Request) -> Response:
    """Adds a mark to the file of the run, and says how the pair stands now."""
    run, said = run_of(request), fields_in(await body_of(request, _LONGEST_MARK))
    return await run_in_threadpool(_marked, request, run, said)


def _marked(request: Request, run: WatchedRun, said: Mapping[str, str]) -> Response:
    row = _row_of(run.index(), said.get("pair_id", ""))
    if row is None:
        raise HTTPException(404, "the run has no such pair")
    line = {key: said[key] for key in ("pair_id", "mark", "note") if said.get(key)}
    line |= {"answer": said.get("answer", "")} if said.get("mark") == "correct" else {}
    try:
        run.marks.add(line, said.get("seen", ""))
    except MarkedMeanwhile as meanwhile:
        return _answered(request, run, row, f"Somebody marked this pair meanwhile: {_in_words(meanwhile.mark)}.", 409)
    except UserError as problem:
        return _answered(request, run, row, str(problem), 400)
    return _answered(request, run, row, "", 200)


def _answered(request: Request, run: WatchedRun, row: Row, problem: str, status: int) -> Response:
    index = run.index()  # takes the mark into the index
    if "application/json" not in request.headers.get("accept", ""):
        facts = {**_shared(run), "here": "pairs", "row": row, "problem": problem}
        return page(request, "pair.html", facts, status=status)
    marked = run.marks.of(row["pair_id"])
    mark, pending = marked or (None, False)
    told = {
        "problem": problem,
        "mark": mark and mark.mark,
        "pending": pending,
        "version": version_of(mark),
        "reviewed": index.reviewed() if index else 0,
    }
    return JSONResponse(told, status_code=status)


def _shared(run: WatchedRun) -> dict[str, object]:
    """What the template of one pair knows besides the pair."""
    return {
        "run": run,
        "verdict_names": VERDICT_NAMES,
        "verdict_words": VERDICT_WORDS,
        "marked": lambda row: run.marks.of(row["pair_id"]),
        "version": lambda row: version_of(found.mark if (found := run.marks.of(row["pair_id"])) else None),
        "gone": lambda row: fault_of(Path(row["image"]), row["image_id"]),
        "looks": lambda row: looks_of(run, row["pair_id"]),
        "problem": "",
    }


def _row_of(index: Index | None, pair_id: str) -> Row | None:
    place = place_of(index, pair_id) if index else None
    return rows_at(index, "pairs", [place])[0] if index and place is not None else None


def _is_known(index: Index, measure: str) -> bool:
    return bool(index.rows(f"SELECT 1 FROM pairs WHERE {measure} IS NOT NULL LIMIT 1"))  # noqa: S608


def _in_words(mark: Mark) -> str:
    answer = f", {json.dumps(mark.answer, ensure_ascii=False)}" if mark.answer else ""
    return f"{mark.mark}{answer}{f' ({mark.note})' if mark.note else ''}"
