"""Pages made of templates: every text that stands in one is escaped, and shows what would change how it reads."""

import time
from collections import UserString
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from parityalign.core import printable
from parityalign.viewer.watching import WatchedRun

LONGEST_TEXT = 2000
"""Most characters of a model's text on a page; a student can ramble."""
_MOST_FIELDS = 20


@cache
def environment() -> Environment:
    """Where the templates lie, with the filters that they use."""
    made = Environment(
        loader=PackageLoader("parityalign.viewer", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters.update(clipped=_clipped, figure=_figure, span=_span, unchanged=UserString)
    return made


def page(request: Request, template: str, facts: Mapping[str, object], *, status: int = 200) -> HTMLResponse:
    """A page of the viewer.

    Args:
        request: What was asked; its application knows the runs.
        template: A file in `templates/`.
        facts: What stands in it.
        status: Of HTTP.
    """
    runs = runs_of(request)
    known = {"runs": list(enumerate(runs)), "run": None, "here": "", "again": 0, "took": _took(request)}
    number = runs.index(run) if isinstance(run := facts.get("run"), WatchedRun) else None
    text = environment().get_template(template).render({**known, "number": number, **facts})
    return HTMLResponse(text.encode("utf-8", "replace"), status_code=status)


def still_reading(request: Request, run: WatchedRun, here: str) -> HTMLResponse:
    """In place of a page whose run is being read, or cannot be read now; it asks again by itself."""
    return page(request, "reading.html", {"run": run, "here": here, "again": 10 if run.fault else 1})


def runs_of(request: Request) -> list[WatchedRun]:
    """All runs that are shown."""
    runs: list[WatchedRun] = request.app.state.runs
    return runs


def run_of(request: Request, number: object = None) -> WatchedRun:
    """The run that the address names, or the one of a number in it.

    Raises:
        HTTPException: There is none.
    """
    said = str(request.path_params["run"] if number is None else number)
    runs = runs_of(request)
    if not said.isdecimal() or len(said) > 9 or int(said) >= len(runs):
        raise HTTPException(404, "there is no such run here")
    return runs[int(said)]


async def body_of(request: Request, limit: int) -> bytes:
    """What was sent with a request.

    Raises:
        HTTPException: It is longer than `limit` bytes.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > limit:
            raise HTTPException(413, f"more than {limit:,} bytes were sent")
    return bytes(content)


def fields_in(content: bytes) -> dict[str, str]:
    """The fields of a form, as a browser sends them.

    Raises:
        HTTPException: It is no such form.
    """
    try:
        text = content.decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS))
    except ValueError as problem:
        raise HTTPException(400, "this is not what the form sends") from problem


def _took(request: Request) -> object:
    """Says, when the template asks at its end, how long the server has worked on the page."""
    began: float = request.scope["began"]
    return lambda: f"{1000 * (time.perf_counter() - began):,.0f} ms"


def _shown(value: Any) -> Any:  # noqa: ANN401 - whatever stands in a template
    """What stands for a value: direction marks and controls are written out, as on the terminal.

    Not in what is `unchanged`, which is escaped alone: a form sends it back.
    """
    if isinstance(value, Markup):
        return Markup(printable(value))
    return printable(value) if isinstance(value, str) else value


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} ... ({len(text):,} characters)"


def _figure(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _span(seconds: float) -> str:
    """A time as a person says it: `12 s`, `3:20`, `1:02:03`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
