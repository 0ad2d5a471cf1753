"""The lowest share of each task's gaps by some number that may be unknown of some."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from parityalign.core import WouldBeGap


def lowest(gaps: Sequence[WouldBeGap], share: float, value: Callable[[WouldBeGap], float | None]) -> list[str]:
    """The ids of the pairs with the lowest values, at most so large a share of each task's known ones.

    Of equal values all are among them, or none.
    """
    by_task: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for gap in gaps:
        found = value(gap)
        if found is not None:
            by_task[gap.pair.task][gap.pair.pair_id] = found
    return [name for of_task in by_task.values() for name in _lowest(of_task, share)]


def _lowest(values: Mapping[str, float], share: float) -> list[str]:
    limit = sorted(values.values())[int(share * len(values))]
    return [name for name, value in values.items() if value < limit]


def unknown_of(gaps: Sequence[WouldBeGap], value: Callable[[WouldBeGap], float | None], what: str, why: str) -> str:
    """A sentence on the gaps whose value is unknown; empty where there are none."""
    unknown = sum(value(gap) is None for gap in gaps)
    if not unknown:
        return ""
    return f"{what} is not known of {unknown:,} of {len(gaps):,} gaps, and none of these was dropped for it: {why}."
