"""The test questions of a run: won, lost and unchanged, with what was compared and how it scored."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parityalign.core import SCORES, Scores, UserError
from parityalign.report import SCORE_HEADINGS, headline, read_record, score_table
from parityalign.viewer.choosing import ORDERS, list_facts, rows_at
from parityalign.viewer.pages import page, run_of, still_reading
from parityalign.viewer.pictures import fault_of
from parityalign.viewer.tables import Row
from parityalign.viewer.watching import WatchedRun

FILTERS: Mapping[str, str] = {"task": "task", "subset": "kind", "change": "after levelling"}
WHO: Mapping[str, str] = {"before": "student before", "after": "student after", "teacher": "teacher"}


def routes() -> list[Route]:
    """The addresses of this page."""
    return [Route("/{run}/tests", show_tests), Route("/{run}/tests/{place:int}", show_question)]


def show_tests(request: Request) -> Response:
    """A page of the list, with one question of it large beside it."""
    run = run_of(request)
    index = run.index()
    if index is None:
        return still_reading(request, run, "tests")
    scores, problem = scores_of(run)
    facts = {
        **_shared(run),
        **list_facts(request.query_params, index, "questions", key="place", named="question", filters=FILTERS),
        "changes": index.facets("questions")["change"],
        "orders": list(ORDERS["questions"]),
        "headline": headline(scores) if scores else "",
        "score_headings": SCORE_HEADINGS,
        "score_rows": score_table(scores) if scores else [],
        "problem": problem,
    }
    return page(request, "tests.html", facts)


def show_question(request: Request) -> Response:
    """One question: a part of a page where a script asks for it, else a page."""
    run = run_of(request)
    index = run.index()
    rows = rows_at(index, "questions", [min(request.path_params["place"], 2**62)]) if index else []
    if not rows:
        raise HTTPException(404, "the run has no such question")
    alone = "part" not in request.query_params
    return page(request, "question.html" if alone else "one_question.html", {**_shared(run), "row": rows[0]})


def scores_of(run: WatchedRun) -> tuple[Scores | None, str]:
    """The scores of a run, if it has some; else why they cannot be read, in words."""
    try:
        return read_record(run.path / SCORES, Scores), ""
    except UserError as problem:
        return None, str(problem)


def _shared(run: WatchedRun) -> dict[str, object]:
    return {
        "run": run,
        "here": "tests",
        "who": WHO,
        "answers": lambda row: Counter(json.loads(row["answers"])).most_common(),
        "said": _said,
        "gone": lambda row: fault_of(Path(row["image"])),
    }


def _said(row: Row) -> dict[str, Any]:
    """What each model said, and how it scored; None of one that was not asked yet."""
    return {**dict.fromkeys(WHO), **json.loads(row["said"])}
