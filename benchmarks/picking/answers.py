"""The study in short: what its records say, in sentences that README has too."""

from textwrap import wrap

from picking.cells import ALL, FORMAT, GAPS, HALF, NOISE, PAPER, RANDOM, RARE, STRONG, TRUE, WEAK, Cell
from picking.measured import Measured, Value, gain, lead, over, steps_to_reach

STEPS = 400
"""The budget that all pools have."""
RULE = """Gaps and replay, with as much replay as the pool has of pairs that the student has right, between a half and
four fifths. So does `select: gaps` if `replay` is not set; `auto` says in the run what the pool came to."""


def said(value: Value) -> str:
    """A value with its intervals."""
    seeds = f" [{value.seeds[0]:+z.1f}, {value.seeds[1]:+z.1f}]" if value.seeds else ""
    return f"{value.score:+z.1f}{seeds} {over_images(value)}"


def over_images(value: Value) -> str:
    """The interval over images."""
    return f"({value.images[0]:+z.1f}, {value.images[1]:+z.1f})"


def in_short(found: Measured) -> str:
    """Four sentences; empty until there is something to say."""
    if not _enough(found):
        return ""
    rare, common, strong = (Cell(pool, GAPS, STEPS) for pool in (RARE, WEAK, STRONG))
    return _wrapped(_rare(found, rare), _in_the_pool(found, rare), _common(found, common), _strong(found, strong))


def in_detail(found: Measured) -> str:
    """What the page has besides; empty until there is something to say."""
    if not _enough(found):
        return ""
    rare, common, strong = (Cell(pool, GAPS, STEPS) for pool in (RARE, WEAK, STRONG))
    told = [_all(found, rare), _replay(found, rare), _papers_way(found, strong)]
    return _wrapped(*told, *_labels(found, common), *_noise(found, common))


def _enough(found: Measured) -> bool:
    cells = [Cell(pool, arm, STEPS) for pool in (RARE, WEAK, STRONG) for arm in (GAPS, RANDOM)]
    needed = [*cells, *(Cell(RARE, arm, STEPS) for arm in (ALL, HALF)), Cell(STRONG, PAPER, 0)]
    return all(cell in found for cell in needed)


def _wrapped(*sentences: str) -> str:
    return "\n".join(wrap(" ".join(sentences), 116, break_long_words=False, break_on_hyphens=False))


def _rare(found: Measured, cell: Cell) -> str:
    return (
        f"Picking makes a difference where gaps are rare: with {_share(found, cell)} % of them, {STEPS} steps on gaps "
        f"and replay gain {gain(found[cell].values()).score:.1f} points on a test where the student was wrong on half "
        f"of the questions, {_lead(found, cell, RANDOM)} more than on as many random pairs "
        f"({_seeds(found, cell, RANDOM)} seeds; 95 % over images)."
    )


def _in_the_pool(found: Measured, cell: Cell) -> str:
    each = found[cell].values()
    in_pool, taken = gain(each, as_in_pool=True), sum(one.record["held out"]["accepted"] for one in each)
    return (
        f"With such questions as rare in the test as in the pool the gain is {in_pool.score:+z.1f} "
        f"{over_images(in_pool)}, and a run would have taken {taken} of these {len(each)} students."
    )


def _common(found: Measured, cell: Cell) -> str:
    return (
        f"Where {_share(found, cell)} % are gaps, the lead over random pairs is {_lead(found, cell, RANDOM)} of "
        f"{gain(found[cell].values()).score:.1f} points."
    )


def _strong(found: Measured, cell: Cell) -> str:
    return (
        f"A strong student, with {_share(found, cell)} % gaps, gains {_gained(found, cell)} from gaps and replay and "
        f"{_gained(found, cell._replace(arm=RANDOM))} from random pairs."
    )


def _all(found: Measured, cell: Cell) -> str:
    reached = steps_to_reach(found, cell)
    there = ""
    if reached and reached.after:
        there = (
            f", and after about {reached.after:,.0f} steps ({reached.seeds} seeds) where random pairs are after "
            f"{reached.last:,}"
        )
    return (
        f"With rare gaps they are {_lead(found, cell, ALL)} points ahead of all pairs ({_seeds(found, cell, ALL)} "
        f"seeds){there}."
    )


def _replay(found: Measured, cell: Cell) -> str:
    half = found[cell._replace(arm=HALF)]
    as_usual = {seed: one for seed, one in found[cell].items() if seed in half}
    forgets, bare = (over(each, lambda one: one.forgotten) for each in (as_usual, half))
    more, less = (over(each, lambda one: one.gain_as_in_pool) for each in (as_usual, half))
    return (
        "The share of replay decides what is forgotten: with a half in place of four fifths they gain "
        f"{gain(half.values()).score:.1f} and forget {bare:.0f} % of what was right in place of {forgets:.0f} %, so "
        f"that on questions as rare as the pool's gaps they come to {less:+z.1f} in place of {more:+z.1f} points."
    )


def _papers_way(found: Measured, cell: Cell) -> str:
    return (
        "The paper's way, gaps alone in one epoch at a low rate, brings the strong student "
        f"{_gained(found, Cell(cell.pool, PAPER, 0))}."
    )


def _labels(found: Measured, cell: Cell) -> list[str]:
    true, form = (cell._replace(arm=arm) for arm in (TRUE, FORMAT))
    if true not in found or form not in found:
        return []
    return [
        f"As many pairs of the drawn truth, with gaps as they come, bring the weak student {_gained(found, true)}; the "
        f"teacher's questions with the student's own answers, {_gained(found, form)}."
    ]


def _noise(found: Measured, cell: Cell) -> list[str]:
    noisy = {noise: cell._replace(pool=cell.pool._replace(noise=noise)) for noise in NOISE}
    if not all(each in found for each in noisy.values()):
        return []
    gains = " and ".join(_gained(found, each) for each in noisy.values())
    seeds = set.intersection(*({*found[each]} for each in noisy.values()))
    clean = gain([one for seed, one in found[cell].items() if seed in seeds])
    shares = " and ".join(map(str, NOISE))
    return [
        f"With {shares} % wrong labels gaps and replay bring it {gains} in place of {clean.score:+z.1f} "
        f"{over_images(clean)}."
    ]


def _seeds(found: Measured, cell: Cell, arm: str) -> int:
    """How many seeds have both."""
    return len({*found[cell]} & {*found[cell._replace(arm=arm)]})


def _share(found: Measured, cell: Cell) -> int:
    return round(100 * over(found[cell], lambda one: one.record["gap share"]))


def _gained(found: Measured, cell: Cell) -> str:
    value = gain(found[cell].values())
    return f"{value.score:+z.1f} {over_images(value)}"


def _lead(found: Measured, cell: Cell, over_arm: str) -> str:
    value = lead(found, cell, over_arm)
    return f"{value.score:.1f} {over_images(value)}" if value else ""
