"""Drops a gap unless another model's own answer agrees with the pair's: `second_teacher: hf:OWNER/NAME`.

Two models that were trained apart seldom make up the same answer.
"""

from collections.abc import Mapping, Sequence

from parityalign.core import FilterCost, PairFilter, SecondLook, WouldBeGap

REASON = "the second teacher answers otherwise"
NO_ANSWER = "the second teacher gives no answer"


def check(gaps: Sequence[WouldBeGap], teacher: SecondLook, setting: bool) -> Mapping[str, str]:
    """Reasons against gaps that the second teacher does not confirm."""
    said = teacher.ask(gaps, second=True)
    texts = [(gap, said[gap.pair.pair_id].text) for gap in gaps]  # empty: declined, or cut off in a thought
    return {
        gap.pair.pair_id: REASON if text else NO_ANSWER
        for gap, text in texts
        if not text or not teacher.agrees(gap, text)
    }


FILTER = PairFilter(check=check, cost=lambda setting: FilterCost(of_second=1))
