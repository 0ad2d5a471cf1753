"""Keeps at most so many pairs of each question over a task's whole pool: `question_limit: 200`.

A pool of street scenes may bring "What does the sign say?" a thousand times; questions count as the same whatever their
wording. Which pairs stay is decided by their ids, as good as drawn.
"""

from collections.abc import Mapping, Sequence

from parityalign.core import Pair, PairFilter
from parityalign.stages.filters._questions import crowded

REASON = "there are enough pairs with this question"


def among(pairs: Sequence[Pair], setting: int) -> Mapping[str, str]:
    """Reasons against the pairs of each question beyond the limit."""
    return dict.fromkeys(crowded(pairs, setting, lambda pair: ""), REASON)


FILTER = PairFilter(among=among)
