"""How and how much the two models differ on each pair, and what a pair weighs in levelling because of it."""

import math
from collections.abc import Iterable

from parityalign.config import EvidenceSettings
from parityalign.core import Measure, Profile

_LEAST = math.log(1e-3)
"""No pair counts less than a thousandth of the one that counts most, before the mean is set to 1."""


def signed_measure(profile: Profile, measure: Measure) -> float | None:
    """A measure with the sign that makes more of it a larger difference between the models."""
    value: float | None = getattr(profile, measure)
    return -value if value is not None and measure == Measure.PATH_SURPRISE else value


def most_discrepant_first(profiles: Iterable[Profile], measure: Measure) -> list[Profile]:
    """The profiles from the largest discrepancy to the smallest, those without the measure last."""

    def place(profile: Profile) -> tuple[float, str]:
        value = signed_measure(profile, measure)
        return math.inf if value is None else -value, profile.pair_id

    return sorted(profiles, key=place)


def pair_weights(profiles: Iterable[Profile], settings: EvidenceSettings) -> dict[str, float]:
    """What each pair counts in levelling, with mean 1 over the pairs, whatever their order.

    `teacher_confidence`: the probability that the teacher gives its own answer (geometric mean over the tokens) to the
    power of `weight_exponent`, since a teacher that is unsure of its answer is likelier wrong. `confidence_gap`: its
    part in the sum of both models' probabilities, likewise, which grows with the gap and stays between 0 and 1. A pair
    without the evidence counts 1; none counts less than a thousandth of the one that counts most.
    """
    logs = {profile.pair_id: _log_weight(profile, settings) for profile in profiles}
    known = [value for value in logs.values() if value is not None]
    if not known:
        return dict.fromkeys(logs, 1.0)
    largest = max(known)
    raw = {name: math.exp(max(value - largest, _LEAST)) for name, value in logs.items() if value is not None}
    mean = math.fsum(raw.values()) / len(raw)
    return {name: raw[name] / mean if name in raw else 1.0 for name in logs}


def _log_weight(profile: Profile, settings: EvidenceSettings) -> float | None:
    if settings.weight_by == "teacher_confidence" and profile.teacher_logprob is not None:
        return settings.weight_exponent * profile.teacher_logprob
    if settings.weight_by == "confidence_gap" and profile.confidence_gap is not None:
        return settings.weight_exponent * _log_sigmoid(profile.confidence_gap)
    return None


def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))
