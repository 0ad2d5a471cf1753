"""Drops the gaps whose answer hangs least on the picture: `visual_advantage: 0.1` is a tenth of each task's.

The advantage is by how much the mean log-probability of the pair's answer falls for the teacher when a grey picture
stands in place of its own (what VA-OPD weighs by: arXiv 2605.21924). Only local teachers tell.
"""

from collections.abc import Mapping, Sequence

from parityalign.core import FilterCost, PairFilter, SecondLook, WouldBeGap
from parityalign.stages.filters._shares import lowest, unknown_of

REASON = "the picture helps this answer less than the task's others"


def check(gaps: Sequence[WouldBeGap], teacher: SecondLook, setting: float) -> Mapping[str, str]:
    """Reasons against at most this share of each task's gaps."""
    seen, unseen = teacher.score(gaps), teacher.score(gaps, blank=True)

    def advantage(gap: WouldBeGap) -> float | None:
        name = gap.pair.pair_id
        return seen[name] - unseen[name] if name in seen and name in unseen else None

    teacher.note(unknown_of(gaps, advantage, "By how much the picture helps", "the teacher does not score answers"))
    return dict.fromkeys(lowest(gaps, setting, advantage), REASON)


FILTER = PairFilter(check=check, cost=lambda setting: FilterCost(scores=2))
