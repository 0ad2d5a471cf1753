"""Drops a gap unless every one of so many drawn answers of the teacher agrees with the pair's: `re_answers: 4`."""

from collections.abc import Mapping, Sequence

from parityalign.core import FilterCost, PairFilter, SecondLook, WouldBeGap

REASON = "a drawn answer of the teacher is another"


def check(gaps: Sequence[WouldBeGap], teacher: SecondLook, setting: int) -> Mapping[str, str]:
    """Reasons against gaps with an answer that does not agree; one that falls is not asked about again."""
    reasons: dict[str, str] = {}
    for draw in range(setting):
        left = [gap for gap in gaps if gap.pair.pair_id not in reasons]
        said = teacher.ask(left, draw=draw)
        texts = [(gap, said[gap.pair.pair_id].text) for gap in left]  # empty: declined, or cut off in a thought
        reasons |= {gap.pair.pair_id: REASON for gap, text in texts if text and not teacher.agrees(gap, text)}
    return reasons


FILTER = PairFilter(check=check, cost=lambda setting: FilterCost(questions=setting))
