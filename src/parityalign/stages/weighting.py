"""Training weights and ranking of pairs by how much the two models differ on them."""

import math
from collections.abc import Iterable

from parityalign.config import DiscrepancySettings
from parityalign.core import Measure, PairDiscrepancy

_LEAST = math.log(1e-3)
"""Smallest weight relative to the largest, before the mean is set to 1."""


def most_discrepant_first(pairs: Iterable[PairDiscrepancy], measure: Measure) -> list[PairDiscrepancy]:
    """From the largest discrepancy to the smallest; pairs without the measure come last."""

    def place(each: PairDiscrepancy) -> tuple[float, str]:
        value: float | None = getattr(each, measure)
        return math.inf if value is None else -value, each.pair_id

    return sorted(pairs, key=place)


def pair_weights(pairs: Iterable[PairDiscrepancy], settings: DiscrepancySettings) -> dict[str, float]:
    """The training weight of each pair, with mean 1 over the pairs, independent of their order.

    `teacher_confidence`: the teacher's probability of its own answer (geometric mean over the tokens) to the power of
    `weight_exponent`, since a teacher that is unsure of its answer is likelier wrong. `confidence_gap`: the teacher's
    share of the sum of both models' probabilities, to the same power, which grows with the gap and is between 0 and 1.
    A pair without the measure has weight 1; no weight is below a thousandth of the largest.
    """
    logs = {each.pair_id: _log_weight(each, settings) for each in pairs}
    known = [value for value in logs.values() if value is not None]
    if not known:
        return dict.fromkeys(logs, 1.0)
    largest = max(known)
    raw = {name: math.exp(max(value - largest, _LEAST)) for name, value in logs.items() if value is not None}
    mean = math.fsum(raw.values()) / len(raw)
    return {name: raw[name] / mean if name in raw else 1.0 for name in logs}


def _log_weight(pair: PairDiscrepancy, settings: DiscrepancySettings) -> float | None:
    if settings.weight_by == "teacher_confidence" and pair.teacher_logprob is not None:
        return settings.weight_exponent * pair.teacher_logprob
    if settings.weight_by == "confidence_gap" and pair.confidence_gap is not None:
        return settings.weight_exponent * _log_sigmoid(pair.confidence_gap)
    return None


def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))
