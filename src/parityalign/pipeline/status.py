"""How far a run is: its stages, what is up to date, what they counted, asked and took."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from parityalign.config import RunConfig
from parityalign.core import ANSWERS, EVENTS, Progress, UserError, read_manifest, read_marker
from parityalign.engines import AnswerStore
from parityalign.pipeline.dry_run import looked_at
from parityalign.pipeline.run import Run

UP_TO_DATE, OUT_OF_DATE, NOT_DONE, DEPENDS = "up to date", "out of date", "not done", "waits for the stages before"


class StageStatus(NamedTuple):
    """How far one stage is."""

    stage: str
    state: str
    """`UP_TO_DATE` and the like."""
    why: str
    """What changed, if it is out of date."""
    counts: Mapping[str, int]
    asked: int
    """Questions that this run has asked for it so far, for earlier settings too."""
    seconds: float | None
    """What it took, the last time; None: unknown."""


def status_of(config: RunConfig, progress: Progress) -> list[StageStatus]:
    """The stages of a run in their order; changes nothing, and asks no model.

    Args:
        config: The configuration.
        progress: Called while a test split is read.

    Raises:
        UserError: The run folder cannot be read.
    """
    seconds = _seconds(config.run / EVENTS)
    with looked_at(config, progress) as run:
        spent = run.models.store.spent()
        return [
            StageStatus(
                stage.name,
                *_state(run, place),
                (read_manifest(config.run / stage.artifact) or {"counts": {}})["counts"],
                sum(each.answers + each.signals for (of, _), each in spent.items() if of == stage.name),
                seconds.get(stage.name),
            )
            for place, stage in enumerate(run.stages)
        ]


class WaitingJob(NamedTuple):
    """Questions that wait at a provider of a batch interface."""

    stage: str
    model: str
    job: str
    """The provider's name of it; empty: it was cut off while it was handed in."""
    questions: int
    told: str
    """How far it was when it was looked at last, in the provider's words."""
    done: int
    made: str
    """When, in UTC."""


def waiting_jobs(config: RunConfig) -> list[WaitingJob]:
    """What waits at providers for a run, and for others that share its answers; asks nobody.

    Raises:
        UserError: The answer store cannot be read.
    """
    path = config.answers or config.run / ANSWERS
    if not path.is_file():
        return []
    with closing(AnswerStore(path, read_only=True)) as store:
        return [
            WaitingJob(each.stage, each.model, each.job, len(each.questions), each.told, each.done, _utc(each.made))
            for each in store.jobs.all()
        ]


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


@contextmanager
def answers_of(config: RunConfig) -> Iterator[AnswerStore]:
    """The answer store of a run.

    Raises:
        UserError: The run has none yet, or it cannot be read.
    """
    path = config.answers or config.run / ANSWERS
    if not path.is_file():
        raise UserError(f"the run {config.run} has no answers yet: there is no {path}")
    with closing(AnswerStore(path, run=read_marker(config.run))) as store:
        yield store


def _state(run: Run, place: int) -> tuple[str, str]:
    stage = run.stages[place]
    if any(not run.is_current(each) for each in run.stages[:place]):
        return (DEPENDS if read_manifest(run.folder.path / stage.artifact) else NOT_DONE), ""
    found = run.look(stage)
    if found.finished:
        return UP_TO_DATE, ""
    return (OUT_OF_DATE, found.redone_because) if found.redone_because else (NOT_DONE, "")


def _seconds(events: Path) -> dict[str, float]:
    """What each stage took the last time, from the run's log."""
    found: dict[str, float] = {}
    for event in _events(events):
        if event.get("event") == "finished" and isinstance(event.get("seconds"), int | float):
            found[str(event.get("stage"))] = float(event["seconds"])
    return found


def _events(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # a torn line
            continue
        if isinstance(event, dict):
            yield event
