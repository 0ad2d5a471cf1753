"""Drops a pair whose question another pair on the same picture asks too, perhaps in other words: `same_question: true`.

Of such pairs the first stays, in the order of their ids, which does not hang on the order of the pool.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from parityalign.core import Pair, PairFilter
from parityalign.stages.filters._questions import crowded

REASON = "another pair on the picture asks the same"


def among(pairs: Sequence[Pair], setting: Any) -> Mapping[str, str]:  # noqa: ANN401 - there is nothing to set
    """Reasons against all but one pair of each question on a picture."""
    return dict.fromkeys(crowded(pairs, 1, lambda pair: pair.image_id), REASON)


FILTER = PairFilter(among=among)
