"""How far a run is, and what differs between two."""

import json
from collections import Counter

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parityalign.core import CONFIG
from parityalign.report import VERDICT_WORDS, curve_charts
from parityalign.viewer.choosing import rows_at
from parityalign.viewer.comparing import (
    compared_questions,
    compared_verdicts,
    differing_counts,
    differing_settings,
    names_of,
    scores_side_by_side,
)
from parityalign.viewer.pages import page, run_of, runs_of, still_reading
from parityalign.viewer.progress import progress_of
from parityalign.viewer.test_pages import scores_of

_AGAIN = 3
"""Seconds after which the page of a run at work comes again."""


def routes() -> list[Route]:
    """The addresses of these pages."""
    return [Route("/{run}/run", show_run), Route("/compare", compare)]


def show_run(request: Request) -> Response:
    """Stages, the step at work, cost, curves, events, settings; comes again by itself while the run is at work."""
    run = run_of(request)
    run.index()  # begins to read what is new, for the other pages
    found = progress_of(run)
    text = (run.path / CONFIG).read_text(encoding="utf-8", errors="replace")
    facts = {
        "run": run,
        "here": "run",
        "found": found,
        "charts": curve_charts(found.curves),
        "settings": text,
        "again": _AGAIN if found.working else 0,
    }
    return page(request, "run.html", facts)


def compare(request: Request) -> Response:
    """Two runs side by side."""
    asked = request.query_params
    one, other = run_of(request, asked.get("one", "0")), run_of(request, asked.get("other", len(runs_of(request)) - 1))
    left, right = one.index(), other.index()
    if left is None or right is None:
        return still_reading(request, one if left is None else other, "compare")
    questions = compared_questions(left, right)
    listed = [
        (change, rows_at(left, "questions", [before])[0], rows_at(right, "questions", [after])[0])
        for change, before, after in questions.listed
    ]
    runs = runs_of(request)
    facts = {
        "here": "compare",
        "chosen": (runs.index(one), runs.index(other)),
        "names": names_of(one, other),
        "problems": [*one.problems, *other.problems],
        "settings": differing_settings(one.path, other.path),
        "counts": differing_counts(one.path, other.path),
        "scores": scores_side_by_side(scores_of(one)[0], scores_of(other)[0]),
        "verdicts": compared_verdicts(left, right),
        "verdict_words": VERDICT_WORDS,
        "questions": questions,
        "listed": listed,
        "after": lambda row: json.loads(row["said"])["after"]["text"],
        "reference": lambda row: Counter(json.loads(row["answers"])).most_common(1)[0][0],
    }
    return page(request, "compare.html", facts)
