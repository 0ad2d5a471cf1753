"""Drops a gap that the teacher answers the same with a grey picture in place of its own: `blank_picture: true`.

Such a question is answered from its words alone (found in many benchmarks: MMStar, arXiv 2403.20330), so the pair shows
the student nothing to see.
"""

from collections.abc import Mapping, Sequence

from parityalign.core import FilterCost, PairFilter, SecondLook, WouldBeGap

REASON = "the teacher answers the same without the picture"


def check(gaps: Sequence[WouldBeGap], teacher: SecondLook, setting: bool) -> Mapping[str, str]:
    """Reasons against gaps whose answer does not need the picture."""
    said = teacher.ask(gaps, blank=True)
    return {gap.pair.pair_id: REASON for gap in gaps if teacher.agrees(gap, said[gap.pair.pair_id].text)}


FILTER = PairFilter(check=check, cost=lambda setting: FilterCost(questions=1))
