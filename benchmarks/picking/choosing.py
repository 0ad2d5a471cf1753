"""The choice that the run makes by itself (`select: auto`), beside the best fixed one of every measured cell."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from picking.cells import ALL, GAPS, HALF, MOST, RANDOM, Cell
from picking.measured import Measured, Value, lead

OTHERS = (HALF, MOST, ALL, RANDOM)
"""What a user could set instead of gaps and the pool's own replay, which `auto` takes."""


class Choice(NamedTuple):
    """What `auto` takes in a cell, beside the best of the others by one of the two rulers."""

    cell: Cell
    as_in_pool: bool
    """Whether the test is weighted as the pool is."""
    best: str
    """The arm of the others with the highest gain, on the same seeds."""
    ahead: Value


def choices(found: Measured) -> Iterator[Choice]:
    """Of each pool and budget where what `auto` takes was measured, and something else, by both rulers."""
    for cell, as_in_pool in product((each for each in found if each.arm == GAPS), (False, True)):
        leads = {arm: value for arm in OTHERS if (value := lead(found, cell, arm, as_in_pool=as_in_pool))}
        if leads:
            best = min(leads, key=lambda arm: leads[arm].score)
            yield Choice(cell, as_in_pool, best, leads[best])
