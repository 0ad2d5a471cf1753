"""The study in short: what its records say, in sentences that README has too."""

from textwrap import wrap

from picking.cells import ALL, GAPS, HALF, PAPER, RANDOM, RARE, STRONG, WEAK, Cell
from picking.measured import Measured, Value, gain, lead, over, steps_to_reach

STEPS = 400
"""The budget that all pools have."""
RULE = """Gaps and replay, with as much replay as the pool has of pairs that the student has right, between a half and
four fifths. So does `select: gaps` if `replay` is not set; `auto` says in the run what the pool came to."""


def said(value: Value) -> str:
    """A value with its intervals."""
    seeds = f" [{value.seeds[0]:+.1f}, {value.seeds[1]:+.1f}]" if value.seeds else ""
    return f"{value.score:+.1f}{seeds} {over_images(value)}"


def over_images(value: Value) -> str:
    """The interval over images."""
    return f"({value.images[0]:+.1f}, {value.images[1]:+.1f})"


def in_short(found: Measured) -> str:
    """A few sentences; empty until there is something to say."""
    cells = [Cell(pool, arm, STEPS) for pool in (RARE, WEAK, STRONG) for arm in (GAPS, RANDOM)]
    needed = [*cells, *(Cell(RARE, arm, STEPS) for arm in (ALL, HALF)), Cell(STRONG, PAPER, 0)]
    if any(cell not in found for cell in needed):
        return ""
    rare, common, strong = (Cell(pool, GAPS, STEPS) for pool in (RARE, WEAK, STRONG))
    sentences = [_rare(found, rare), _replay(found, rare), _common(found, common), _strong(found, strong)]
    return "\n".join(wrap(" ".join(sentences), 116, break_long_words=False, break_on_hyphens=False))


def _rare(found: Measured, cell: Cell) -> str:
    each = found[cell].values()
    reached = steps_to_reach(found, cell)
    there = ""
    if reached and reached.after:
        there = f"; after about {reached.after:,.0f} ({reached.seeds} seeds) they are where random pairs end"
    seeds = f"{_seeds(found, cell, RANDOM)} seeds, {_seeds(found, cell, ALL)} of all pairs; intervals over images"
    in_pool, taken = gain(each, as_in_pool=True), sum(one.record["held out"]["accepted"] for one in each)
    return (
        f"Picking makes a difference where gaps are rare: with {_share(found, cell)} % of them, {STEPS} steps on gaps "
        f"and replay gain {gain(each).score:.1f} points on a test where the student was wrong on half of the "
        f"questions, {_lead(found, cell, RANDOM)} more than on as many random pairs and {_lead(found, cell, ALL)} more "
        f"than on all{there} ({seeds}). On questions as rare as the pool's gaps that is {in_pool.score:+.1f} "
        f"{over_images(in_pool)}, so a run would have taken {taken} of these {len(each)} students and left the others "
        "as they were."
    )


def _seeds(found: Measured, cell: Cell, arm: str) -> int:
    """How many seeds have both."""
    return len({*found[cell]} & {*found[cell._replace(arm=arm)]})


def _replay(found: Measured, cell: Cell) -> str:
    half = found[cell._replace(arm=HALF)]
    as_usual = {seed: one for seed, one in found[cell].items() if seed in half}
    forgets, bare = (over(each, lambda one: one.forgotten) for each in (as_usual, half))
    more, less = (over(each, lambda one: one.gain_as_in_pool) for each in (as_usual, half))
    return (
        "The share of replay decides what is forgotten: with a half in place of four fifths they gain "
        f"{gain(half.values()).score:.1f} and forget {bare:.0f} % of what was right in place of {forgets:.0f} %, so "
        f"that on questions as rare as the pool's gaps they come to {less:+.1f} in place of {more:+.1f} points."
    )


def _common(found: Measured, cell: Cell) -> str:
    return (
        f"Where {_share(found, cell)} % are gaps, gaps and replay are nearly all pairs, and ahead of random ones by "
        f"{_lead(found, cell, RANDOM)} of {gain(found[cell].values()).score:.1f} points."
    )


def _strong(found: Measured, cell: Cell) -> str:
    paper = gain(found[Cell(cell.pool, PAPER, 0)].values())
    return (
        f"A strong student, with {_share(found, cell)} % gaps, gains {_gained(found, cell)} from gaps and replay, "
        f"{_gained(found, cell._replace(arm=RANDOM))} from random pairs and {paper.score:+.1f} {over_images(paper)} "
        "from gaps alone in one epoch at a low rate, the paper's way; none of these differs from 0 by more than its "
        "interval."
    )


def _share(found: Measured, cell: Cell) -> int:
    return round(100 * over(found[cell], lambda one: one.record["gap share"]))


def _gained(found: Measured, cell: Cell) -> str:
    value = gain(found[cell].values())
    return f"{value.score:+.1f} {over_images(value)}"


def _lead(found: Measured, cell: Cell, over_arm: str) -> str:
    value = lead(found, cell, over_arm)
    return f"{value.score:.1f} {over_images(value)}" if value else ""
