"""The viewer as an application: its addresses, its files, its errors in words."""

import time
from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from parityalign.core import UserError
from parityalign.data import Unfit
from parityalign.viewer import pair_pages, run_pages, test_pages, try_pages
from parityalign.viewer.guard import Guard
from parityalign.viewer.pages import page, run_of, runs_of
from parityalign.viewer.pictures import SIDES, Pictures
from parityalign.viewer.trying import Trials
from parityalign.viewer.watching import WatchedRun

STATIC = Path(__file__).parent / "static"
_FILES = {"style.css": "text/css", "viewer.js": "text/javascript", "icon.svg": "image/svg+xml"}
_BY_CONTENT = "private, max-age=86400"
"""For pictures that are named by their content."""
_MISSING = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 120"><rect width="160" height="120" fill="#8883"/>'
    '<text x="80" y="66" text-anchor="middle" font-family="sans-serif" font-size="15" fill="#888">no picture</text>'
    "</svg>"
)


def application(runs: Sequence[WatchedRun], trials: Trials) -> Guard:
    """The viewer of these runs, behind its guard; `trials` holds the models that are tried."""
    app = Starlette(
        routes=[
            Route("/", _first),
            Route("/static/{name}", _static),
            Route("/{run}/pictures/{image_id}", _picture),
            Route("/{run}/test-pictures/{place:int}", _test_picture),
            *pair_pages.routes(),
            *test_pages.routes(),
            *run_pages.routes(),
            *try_pages.routes(),
            Route("/{run}/try/pictures/{name}", _tried_picture),
        ],
        exception_handlers={HTTPException: _refused, UserError: _told},
    )
    app.state.runs, app.state.pictures, app.state.trials = list(runs), Pictures(), trials

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        scope["began"] = time.perf_counter()
        await app(scope, receive, send)

    return Guard(timed)


def _first(request: Request) -> Response:
    """The pairs of the first run, or its stages where it has none yet."""
    index = runs_of(request)[0].index()
    return RedirectResponse("/0/pairs" if index is None or index.facets("pairs")["task"] else "/0/run")


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _FILES:
        raise HTTPException(404, "there is no such file")
    return FileResponse(STATIC / name, media_type=_FILES[name])


def _picture(request: Request) -> Response:
    image_id = request.path_params["image_id"]
    index = run_of(request).index()
    found = index.rows("SELECT image FROM pair_texts WHERE image_id = ? LIMIT 1", image_id) if index else []
    return _sent(request, Path(found[0]["image"]), image_id) if found else _no_picture()


def _test_picture(request: Request) -> Response:
    index = run_of(request).index()
    place = request.path_params["place"]
    found = index.rows("SELECT image FROM question_texts WHERE place = ?", min(place, 2**62)) if index else []
    return _sent(request, Path(found[0]["image"])) if found else _no_picture()


def _tried_picture(request: Request) -> Response:
    path = request.app.state.trials.picture(request.path_params["name"])
    return _sent(request, path) if path else _no_picture()


def _sent(request: Request, path: Path, named: str = "") -> Response:
    side = SIDES["large" in request.query_params]
    try:
        made = request.app.state.pictures.encoded(path, side, named)
    except Unfit:
        return _no_picture()
    headers = {"cache-control": _BY_CONTENT} if named else {}
    return Response(made.content, media_type=made.kind, headers=headers)


def _no_picture() -> Response:
    """A drawing that says so: a browser shows it in the place of the picture."""
    return Response(_MISSING, status_code=404, media_type="image/svg+xml")


def _refused(request: Request, problem: Exception) -> Response:
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    told = problem.detail if isinstance(problem, HTTPException) else str(problem)
    return page(request, "problem.html", {"told": told}, status=status)


def _told(request: Request, problem: Exception) -> Response:
    return page(request, "problem.html", {"told": str(problem)}, status=500)
