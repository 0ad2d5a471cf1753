"""Drops the gaps whose answer the teacher is least sure of: `least_sure: 0.1` is a tenth of each task's.

How sure it is says its answer's own log-probability, which comes with the answer. The least sure share is dropped and
not what lies below a number, since log-probabilities of two teachers, or of two tasks, do not compare.
"""

from collections.abc import Mapping, Sequence

from parityalign.core import PairFilter, SecondLook, WouldBeGap
from parityalign.stages.filters._shares import lowest, unknown_of

REASON = "the teacher is less sure of this answer than of the task's others"
_WHY_UNKNOWN = "the answers were kept by an earlier version or came in a file, or the model does not tell"


def check(gaps: Sequence[WouldBeGap], teacher: SecondLook, setting: float) -> Mapping[str, str]:
    """Reasons against at most this share of each task's gaps."""
    teacher.note(unknown_of(gaps, _logprob, "How sure the teacher is of its answer", _WHY_UNKNOWN))
    return dict.fromkeys(lowest(gaps, setting, _logprob), REASON)


def _logprob(gap: WouldBeGap) -> float | None:
    return gap.answer.logprob


FILTER = PairFilter(check=check)
