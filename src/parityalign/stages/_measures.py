"""The measures of discrepancy: how, and how much, two models differ on each pair, from their stored signals.

Definitions and sources: `docs/objectives.md`, "The discrepancies of a pair".
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parityalign.core import (
    ON_RATIONALES,
    PAIR_DISCREPANCIES,
    RATIONALES,
    STUDENT,
    TEACHER,
    Array,
    Artifact,
    Judged,
    Measure,
    ObservationRef,
    Pair,
    PairDiscrepancy,
    Rationale,
    VerdictKind,
    read_index,
    read_observations,
)

NOT_SCORED = "not_scored"
NO_MAP = "no_map"
NOT_ASKED_FOR = "not_asked_for"
"""No rationales were requested."""
OTHER_GRID = "other_grid"
NOT_FINITE = "not_finite"

_DIGITS = 6
"""Decimals in the file; the stored signals have three or four significant digits."""

_RIGHT: Mapping[VerdictKind, tuple[bool | None, bool | None]] = {
    VerdictKind.TEACHER_ONLY: (True, False),
    VerdictKind.NEITHER: (False, False),
    VerdictKind.STUDENT_RIGHT: (None, True),
    VerdictKind.BOTH: (True, True),
    VerdictKind.STUDENT_ONLY: (False, True),
    VerdictKind.DROPPED: (None, None),
}
"""Whether teacher and student are right, by verdict; None if unknown."""


def write_pair_discrepancies(artifact: Artifact, judged: Sequence[Judged]) -> dict[str, int]:
    """Writes `pairs.jsonl`, one line per pair in order, next to the signals that it is computed from.

    Args:
        artifact: The signals, all written; the artifact is not yet finished.
        judged: The pairs, with their verdicts; those that were dropped were not scored.

    Returns:
        How many values each measure has, and how many are missing for which reason.

    Raises:
        UserError: The signals are damaged.
    """
    teacher, student = (_Side.read(artifact.path, who) for who in (TEACHER, STUDENT))
    why_not = {each.pair_id: each.why_not for each in artifact.stream(RATIONALES, Rationale)}
    found = [
        _pair_discrepancy(pair, verdict.verdict, teacher, student, why_not.get(pair.pair_id, NOT_ASKED_FOR))
        for pair, verdict in judged
        if verdict.verdict != VerdictKind.DROPPED
    ]
    artifact.stream(PAIR_DISCREPANCIES, PairDiscrepancy).write(found)
    return _counts(found)


def attention_divergence(one: Array, other: Array) -> float:
    """Jensen-Shannon divergence of two maps on the same grid, each divided by its sum first; in nats."""
    from scipy.special import rel_entr  # it takes long to import, and every command imports the stages  # noqa: PLC0415

    p, q = (cells.astype(np.float64) / cells.sum(dtype=np.float64) for cells in (one, other))
    middle = (p + q) / 2
    # Rounding may give slightly less than 0 for nearly equal maps.
    return max(0.0, float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2)


class _Side(NamedTuple):
    """The signals of one model, by pair."""

    who: str
    answers: Mapping[str, ObservationRef]
    rationales: Mapping[str, ObservationRef]
    maps: Mapping[str, Array]

    @classmethod
    def read(cls, folder: Path, who: str) -> "_Side":
        index = read_index(folder, who)
        return cls(
            who,
            {line.pair_id: line for line in index},
            {line.pair_id: line for line in read_index(folder, who + ON_RATIONALES)},
            {line.pair_id: seen.places for line, seen in read_observations(folder, index) if line.has_places},
        )


class _Found(NamedTuple):
    """A value, or why there is none."""

    value: float | None
    why_not: str = ""


class _Mean(NamedTuple):
    """A model's mean log-probability of a text, or why it is missing."""

    who: str
    line: ObservationRef | None

    @property
    def missing(self) -> str:
        reason = self.line.why_not if self.line else None
        return f"{self.who}_{reason or NOT_SCORED}"


def _pair_discrepancy(
    pair: Pair, verdict: VerdictKind, teacher: _Side, student: _Side, no_rationale: str | None
) -> PairDiscrepancy:
    name = pair.pair_id
    asked, answered = (_Mean(side.who, side.answers.get(name)) for side in (teacher, student))
    by_teacher, by_student = (_Mean(side.who, side.rationales.get(name)) for side in (teacher, student))
    found = {
        Measure.CONFIDENCE_GAP: _difference(asked, answered),
        Measure.ATTENTION_DIVERGENCE: _attention_divergence(teacher, student, name),
        Measure.RATIONALE_GAP: _Found(None, no_rationale) if no_rationale else _difference(by_teacher, by_student),
    }
    teacher_right, student_right = _RIGHT[verdict]
    return PairDiscrepancy(
        pair_id=name,
        image_id=pair.image_id,
        task=pair.task,
        verdict=verdict,
        teacher_right=teacher_right,
        student_right=student_right,
        teacher_logprob=_finite(asked),
        student_logprob=_finite(answered),
        teacher_tokens=asked.line.tokens if asked.line else 0,
        student_tokens=answered.line.tokens if answered.line else 0,
        **{measure: each.value for measure, each in found.items()},
        missing={measure: each.why_not for measure, each in found.items() if each.value is None},
    )


def _difference(first: _Mean, second: _Mean) -> _Found:
    for mean in (first, second):
        if mean.line is None or mean.line.mean_logprob is None:
            return _Found(None, mean.missing)
    one, other = _finite(first), _finite(second)
    return _Found(None, NOT_FINITE) if one is None or other is None else _Found(round(one - other, _DIGITS))


def _attention_divergence(teacher: _Side, student: _Side, name: str) -> _Found:
    for side in (teacher, student):
        if name not in side.maps:
            seen = _Mean(side.who, side.answers.get(name))
            return _Found(None, f"{side.who}_{NO_MAP}" if seen.line and not seen.line.why_not else seen.missing)
    maps = teacher.maps[name], student.maps[name]
    if len(maps[0]) != len(maps[1]):
        return _Found(None, OTHER_GRID)
    if not all(np.isfinite(cells).all() and cells.any() for cells in maps):
        return _Found(None, NOT_FINITE)
    return _Found(round(attention_divergence(*maps), _DIGITS))


def _finite(mean: _Mean) -> float | None:
    value = mean.line.mean_logprob if mean.line else None
    return round(value, _DIGITS) if value is not None and math.isfinite(value) else None


def _counts(found: Sequence[PairDiscrepancy]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for each in found:
        for measure in Measure:
            counts[f"{measure} {each.missing.get(measure, 'known')}"] += 1
    return dict(counts)
