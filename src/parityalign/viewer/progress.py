"""How far a run is, as its folder tells: stages with counts and cost, the step at work, training's curves.

Nothing is fingerprinted or locked, so a look costs little and is in nobody's way; `parityalign status` looks closer.
"""

import json
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from parityalign.config import ServerSettings
from parityalign.core import (
    ANSWERS,
    EVENTS,
    MEASURED,
    OWNER,
    WORKING,
    UserError,
    read_begun,
    read_manifest,
    read_marker,
    stale_inputs,
)
from parityalign.engines import AnswerStore, Spent, cost
from parityalign.report import Curves, curves_in, events_in
from parityalign.stages import STAGES, Stage, with_added
from parityalign.viewer.watching import WatchedRun

DONE, STALE, AT_WORK, CUT_OFF, NOT_BEGUN = "done", "out of date", "at work", "cut off", "not begun"
_SHOWN_EVENTS = 20
_TOO_LARGE = 1e15
"""No number of a run is."""


class Working(NamedTuple):
    """The step that a process is at."""

    step: str
    done: int
    total: int
    left: float | None
    """Estimated seconds; None: not known yet."""
    detail: str
    """How fast it goes; usually empty."""


class StageLook(NamedTuple):
    """One stage of a run."""

    name: str
    state: str
    why: str
    counts: Mapping[str, int]
    note: str
    seconds: float | None


class Cost(NamedTuple):
    """What a model took in a stage, for earlier settings too."""

    stage: str
    model: str
    spent: Spent
    money: float


class Event(NamedTuple):
    """A line of the run's log."""

    when: str
    what: str
    of: str
    """The stage or artifact."""
    told: str


class Progress(NamedTuple):
    """How far a run is."""

    stages: list[StageLook]
    working: Working | None
    costs: list[Cost]
    curves: Curves
    """What training measured, by name and step."""
    events: list[Event]
    """The last ones, newest first."""
    problems: list[str]


def progress_of(run: WatchedRun) -> Progress:
    """How far a run is; what of it cannot be read is among the problems."""
    problems: list[str] = []
    events = list(events_in(run.path / EVENTS))
    working = working_in(run.path)
    took = {str(each.get("stage")): each.get("seconds") for each in events if each.get("event") == "finished"}
    stages = [_look(run.path, stage, took, working, problems) for stage in _stages(run, problems)]
    costs = _costs(run, problems)
    told = deque((each for each in events if each.get("event") != MEASURED), maxlen=_SHOWN_EVENTS)
    return Progress(stages, working, costs, curves_in(events), [*map(_told, reversed(told))], problems)


def working_in(run: Path) -> Working | None:
    """The step that a process is at in a run folder; None: none is at work there."""
    try:
        said = json.loads((run / WORKING).read_bytes())
        working = Working(str(said["step"]), int(said["done"]), int(said["total"]), _left(said), str(said["detail"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return working if _is_alive(run / OWNER) else None


def _left(said: Mapping[str, Any]) -> float | None:
    fresh, seconds = said["done"] - said["done_before"], _number(said["seconds"])
    return None if seconds is None or fresh <= 0 else _number(seconds * (said["total"] - said["done"]) / fresh)


def _number(said: object) -> float | None:
    """A number as a page can show it; None for an infinite one, and for what is none."""
    return float(said) if isinstance(said, int | float) and abs(said) < _TOO_LARGE else None


def _is_alive(owner: Path) -> bool:
    """Whether the process that took the folder's lock last is still there, and not another one of its number."""
    try:
        number, written = int(owner.read_text(encoding="utf-8")), owner.stat().st_mtime
        return bool(psutil.Process(number).create_time() <= written + 1)
    except (OSError, ValueError, psutil.Error):
        return False


def _stages(run: WatchedRun, problems: list[str]) -> list[Stage]:
    """Those that the configuration wants, and those that were done all the same."""
    config, known = run.config, list(STAGES)
    try:
        known = with_added(config.stages) if config else known
    except UserError as problem:  # a stage of a package that is not installed here
        problems.append(str(problem))
    return [stage for stage in known if (config and stage.wanted(config)) or (run.path / stage.artifact).is_dir()]


def _look(run: Path, stage: Stage, took: Mapping[str, Any], working: Working | None, problems: list[str]) -> StageLook:
    counts, note, state, why = {}, "", NOT_BEGUN, ""
    try:
        manifest = read_manifest(run / stage.artifact)
        anew = read_begun(run / f".{stage.artifact}.new") or read_begun(run / stage.artifact)
        if manifest:
            counts = {name: count for name, count in manifest["counts"].items() if isinstance(count, int)}
            stale = stale_inputs(run, stage.artifact)
            state, why = (STALE, f"{', '.join(stale)} changed since") if stale else (DONE, "")
            note = str(manifest.get("note", ""))
        if anew:
            state, why = (AT_WORK if working else CUT_OFF), ""
    except UserError as problem:
        problems.append(str(problem))
        state = "cannot be read"
    return StageLook(stage.name, state, why, counts, note, _number(took.get(stage.name)))


def _costs(run: WatchedRun, problems: list[str]) -> list[Cost]:
    place = (run.config and run.config.answers) or run.path / ANSWERS
    settings = run.config.server if run.config else ServerSettings()
    if not place.is_file():
        return []
    try:
        with closing(AnswerStore(place, run=read_marker(run.path), read_only=True)) as store:
            spent = store.spent()
    except UserError as problem:
        problems.append(str(problem))
        return []
    return [Cost(stage, model, each, cost(each, settings)) for (stage, model), each in spent.items()]


def _told(event: Mapping[str, Any]) -> Event:
    when = str(event.get("time", ""))[:19].replace("T", " ")
    seconds = _number(event.get("seconds"))
    took = "" if seconds is None else f"{seconds:,.1f} s"
    of = str(event.get("stage") or event.get("artifact") or "")
    return Event(when, str(event.get("event", "")), of, str(event.get("because") or took))
