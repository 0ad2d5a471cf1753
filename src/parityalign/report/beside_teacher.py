"""The student's size and speed beside the teacher's, from what the run noted while it asked both the same questions."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from parityalign.config import RunConfig, read_config
from parityalign.core import ANSWERS, CONFIG, Scores, UserError, read_manifest, read_marker
from parityalign.engines import AnswerStore, Spent
from parityalign.report.tables import ABSENT

ROLES: Mapping[str, tuple[str, ...]] = {"student": ("after", "before"), "teacher": ("teacher",)}
"""How manifests call the two, the best first."""
_ASKED_IN = ("evaluate", "identify")
"""Stages in which both answer briefly and greedily: test questions, else pairs."""
_FEWEST, _SHORTEST = 20, 1.0
"""Answers and seconds of each that a speed is taken from; times are stored with a tenth of a second."""
_MILLION = 1e6


class Beside(NamedTuple):
    """The two models beside each other; None is not known."""

    parameters: Mapping[str, int | None]
    """By `student` and `teacher`."""
    rates: Mapping[str, float | None]
    """Answers a second, of both in the same stage; of the student before levelling."""
    asked_in: str
    """That stage; empty without rates."""
    why_not: str
    """Why the speeds are not compared, in words; empty if they are."""
    since: float | None
    """How many times as fast the student is since levelling, if that was measured."""

    @property
    def smaller(self) -> float | None:
        """How many times smaller the student is."""
        return _ratio(self.parameters["teacher"], self.parameters["student"])

    @property
    def faster(self) -> float | None:
        """How many times as fast the levelled student is."""
        ratio = _ratio(self.rates["student"], self.rates["teacher"])
        return None if ratio is None else ratio * (self.since or 1.0)


def beside_teacher(run: Path, scores: Scores | None) -> Beside:
    """Compares the two models of a run, as far as its folder tells.

    Args:
        run: The run folder.
        scores: None if there are none yet.

    Raises:
        UserError: The answer store, or the folder's marker, is damaged.
    """
    parameters = {who: _parameters(run, roles) for who, roles in ROLES.items()}
    speed = scores.speed if scores else None
    if speed and speed.after:
        parameters["student"] = speed.after.parameters
    rates, asked_in, why_not = _rates(run)
    return Beside(parameters, rates, asked_in, why_not, speed.ratio.value if speed and speed.ratio else None)


BESIDE_HEADINGS = ("", "student", "teacher", "the student is")


def beside_table(found: Beside) -> list[tuple[str, ...]]:
    """What is known of size and speed, as rows of text under `BESIDE_HEADINGS`."""
    rows: list[tuple[str, ...]] = []
    if any(found.parameters.values()):
        told = ABSENT if found.smaller is None else f"{found.smaller:.1f} times smaller"
        rows.append(("parameters, millions", *(_millions(found.parameters[who]) for who in ROLES), told))
    if found.faster is not None:
        when, told = "answers per second", f"{found.faster:.2f} times as fast"
        if found.since:
            when, told = f"{when}, before levelling", f"{told} after levelling"
        rows.append((when, *(f"{found.rates[who]:,.1f}" for who in ROLES), told))
    return rows


def millions(parameters: int) -> str:
    """A number of parameters as people say it: `968 thousand`, `2.2 billion`."""
    for size, name in ((1e9, "billion"), (_MILLION, "million"), (1e3, "thousand")):
        if parameters >= size:
            return f"{parameters / size:.{1 if parameters < 100 * size else 0}f} {name}"
    return str(parameters)


def _millions(parameters: int | None) -> str:
    return ABSENT if parameters is None else f"{parameters / _MILLION:,.2f}"


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def _parameters(run: Path, roles: tuple[str, ...]) -> int | None:
    """As the manifest of a stage noted that loaded the model; of several in turn the last."""
    for artifact in ("student", "answers", "verdicts", "pairs"):
        models: Mapping[str, Any] = (read_manifest(run / artifact) or {}).get("models", {})
        for role in roles:
            told = str(models.get(role, {}).get("parameters", "")).split()
            if told and told[-1].isdecimal():
                return int(told[-1])
    return None


def _rates(run: Path) -> tuple[Mapping[str, float | None], str, str]:
    nothing = dict.fromkeys(ROLES)
    try:
        config = read_config(run / CONFIG, run)
    except UserError:
        return nothing, "", "the run's configuration cannot be read"
    spent = _spent(run, config)
    names = {"student": config.student, "teacher": config.teacher}
    for stage in _ASKED_IN:
        found = {who: spent.get((stage, name), Spent()) for who, name in names.items()}
        if any(each.requests for each in found.values()):
            return nothing, "", "a server's time includes the network and its other load"
        if all(each.answers >= _FEWEST and each.seconds >= _SHORTEST for each in found.values()):
            return {who: each.answers / each.seconds for who, each in found.items()}, stage, ""
    return nothing, "", "too few questions were asked in this run to tell"


def _spent(run: Path, config: RunConfig) -> dict[tuple[str, str], Spent]:
    place = config.answers or run / ANSWERS
    if not place.is_file():
        return {}
    with closing(AnswerStore(place, run=read_marker(run), read_only=True)) as store:
        return store.spent()
