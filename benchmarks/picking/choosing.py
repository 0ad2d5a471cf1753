"""The choice that the run makes by itself (`select: auto`), beside the best fixed one of every measured cell."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from parityalign.config import LevelSettings
from parityalign.stages.selection import selection_of
from picking.cells import ALL, GAPS, HALF, MOST, PAPER, RANDOM, Cell
from picking.measured import Measured, Value, lead, over

FIXED = (GAPS, HALF, MOST, ALL, RANDOM)
"""What a user could set instead."""


class Choice(NamedTuple):
    """What `auto` takes in a cell, beside the best of the others by one of the two rulers."""

    cell: Cell
    """With the arm that it takes."""
    as_in_pool: bool
    """Whether the test is weighted as the pool is."""
    best: str
    """The arm of the others with the highest gain, on the same seeds."""
    ahead: Value


def choices(found: Measured) -> Iterator[Choice]:
    """Of each pool and budget where what `auto` takes was measured, and something else, by both rulers."""
    for cell, as_in_pool in product(found, (False, True)):
        others = [arm for arm in FIXED if arm != cell.arm]
        leads = {arm: value for arm in others if (value := lead(found, cell, arm, as_in_pool=as_in_pool))}
        if leads and cell.arm == taken(found, cell):
            best = min(leads, key=lambda arm: leads[arm].score)
            yield Choice(cell, as_in_pool, best, leads[best])


def taken(found: Measured, cell: Cell) -> str:
    """The arm that `auto` takes of the pool of a cell."""
    if cell.arm == PAPER:
        return GAPS
    usable = round(over(found[cell], lambda one: one.record["taken of"]))
    gaps = round(usable * over(found[cell], lambda one: one.record["gap share"]))
    auto = LevelSettings(select="auto")
    select = selection_of(auto, gaps=gaps, had_right=usable - gaps, usable=usable).select
    return {"gaps": GAPS, "all": ALL, "random": RANDOM}[select]
