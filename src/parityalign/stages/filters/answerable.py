"""Drops a gap whose question the teacher says cannot be answered from the picture: `answerable: true`.

That is the one check that sees a question about what the picture does not hold: asked again, a model answers the same.
"""

from collections.abc import Mapping, Sequence

from parityalign.core import FilterCost, PairFilter, SecondLook, WouldBeGap
from parityalign.stages.parsing import yes_or_no

REASON = "the teacher says that the picture does not answer it"
AFTER = "Can this question be answered from the image alone? Answer yes or no."


def check(gaps: Sequence[WouldBeGap], teacher: SecondLook, setting: bool) -> Mapping[str, str]:
    """Reasons against gaps about which the teacher says no; whatever else it says is no reason."""
    said = teacher.ask(gaps, after=AFTER)
    return {gap.pair.pair_id: REASON for gap in gaps if yes_or_no(said[gap.pair.pair_id].text) is False}


FILTER = PairFilter(check=check, cost=lambda setting: FilterCost(questions=1))
