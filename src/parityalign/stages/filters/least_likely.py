"""Drops the gaps that the teacher was least likely to write: `least_likely: 0.1` is a tenth of each task's.

The log-probability of the reply that a pair was read from comes with the reply, and is taken a character, since longer
replies are less likely. A question about what is not in the picture is an unlikely one to write, however sure the
teacher then is of its answer.
"""

from collections.abc import Mapping, Sequence

from parityalign.core import PairFilter, SecondLook, WouldBeGap
from parityalign.stages.filters._shares import lowest, unknown_of

REASON = "the teacher was less likely to write this pair than the task's others"
_WHY_UNKNOWN = "the replies were kept by an earlier version, the pairs came in a file, or the model does not tell"


def check(gaps: Sequence[WouldBeGap], teacher: SecondLook, setting: float) -> Mapping[str, str]:
    """Reasons against at most this share of each task's gaps."""
    teacher.note(unknown_of(gaps, _likelihood, "How likely the teacher was to write a pair", _WHY_UNKNOWN))
    return dict.fromkeys(lowest(gaps, setting, _likelihood), REASON)


def _likelihood(gap: WouldBeGap) -> float | None:
    return gap.likelihood


FILTER = PairFilter(check=check)
