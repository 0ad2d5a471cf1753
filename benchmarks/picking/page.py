"""`docs/results-picking.md`, its figure, and the numbers in reports of runs, made from the records alone."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from parityalign.core import write_whole
from parityalign.report import picking_figure
from picking.answers import RULE, in_detail, in_short, over_images, said
from picking.cells import (
    ALL,
    FORMAT,
    GAPS,
    HALF,
    MOST,
    PAPER,
    PAPERS_WAY,
    RANDOM,
    RATES,
    STUDY,
    TIERS,
    TRUE,
    Cell,
    Pool,
    rank,
    records,
)
from picking.choosing import choices
from picking.measured import Measured, Test, gain, lead, measured, over, steps_to_reach, tests_of
from picking.numbers import numbers

FIGURE = "study/picking.svg"
ARMS = (GAPS, HALF, MOST, ALL, RANDOM, TRUE, FORMAT, PAPER)
HEAD = """# When does picking gaps pay?

Made by `make study` from the records in [study/](study/), one a training; a test makes it again from them.

![How far gaps are ahead of random pairs]({figure})

{answer}

{detail}

## How it was measured

Each seed is a run of the demo on 6,000 pictures of its own. The weak student is the embedded one; the strong
student is the one that the next seed's run levelled, on this seed's pictures, with the same teacher's pairs. Pools
with fewer gaps are the weak student's with gaps left out at random. With wrong labels, so many pairs have the
answer of another picture to the same question, and the teacher repeats it. `true labels` are facts of the pool's
pictures as they were drawn, those that left-out gaps ask for among them. Bundled teacher and settings are those of
the demo; with others a study begins anew.

Every training is one of the product: all weights but the vision tower's, {batch} pairs a step, a rate of {weak:g}
for the weak student and {strong:g} for the strong one, as much replay as the pool has, between a half and four
fifths. It keeps the checkpoint with the lowest loss on the pairs of held-out images of its pool, or the student as
it was, and never weights between them (`interpolate: false`). Each budget is a training of its own, with a rate that
falls to 0 at its end: a look along a longer one would be at a rate that is still high. All arms of a budget take the
same steps, but for `paper`: gaps alone, one epoch, a low rate ({paper:g}). Gains are of the trained student; `taken`
says of how many seeds the held-out pairs would have it taken, else a run leaves the student as it was.

Reported is the seed's own test, 600 questions a task on pictures that are in no pool, by each task's official
metric: means of the four tasks, in points. `[..]` is a 95 % t interval over seeds, `(..)` one over images
(bootstrap, these seeds). `as in the pool` weights the test's questions so that those that the student had wrong
have the share that gaps have in the pool: half of the test is wrong before, and what rare gaps bring counts too
much there. `to teacher` is the share of the distance to the teacher, `forgotten` that of the questions that were
right before. CPU seconds are those of choosing and training, one thread, on a machine that other work shared: they
compare arms and no more.

"""
POOLS = """## The pools

| pool | seeds | usable pairs | gaps | student before | teacher | teacher calls: annotate | identify |
|---|---|---|---|---|---|---|---|
"""
NOTE = """
`all pairs`, `random pairs` and `format only` need the calls of annotate alone, `true labels` none; gaps need both. The
student answers each pair once for identify.

"""
COLUMNS = """
| steps | trained on | seeds | pairs | gaps in them | after | gain | ahead of random pairs | as in the pool | \
to teacher | forgotten | taken | CPU s |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""
REACH = """
## Steps to where random pairs end

The gain that random pairs have at the largest budget, and after how many steps (between the measured budgets by a
straight line over the logarithm) other choices have it.

| pool | trained on | seeds | random pairs | reached after |
|---|---|---|---|---|
"""
CHOOSING = """
## What `select: auto` takes

{rule}

Beside the best of the other arms that were measured in the cell, by the test as it is and as in the pool, which is what
a run itself can know. That best is one of several and so a little lucky. `holds` says **no** if
`auto` is behind by more than the interval over images.

| pool | steps | `auto` takes | test | best other | seeds | `auto` is ahead by | holds |
|---|---|---|---|---|---|---|---|
"""
MISSING = """
## Not measured

Planned, and not reached in the time there was; `make study` goes on:

"""


def write(records_folder: Path, out: Path, in_package: Path) -> None:
    """Writes the page and, beside the records' name, its figure; and the numbers that come with the package."""
    kept = [*records(records_folder)]
    found, tests = measured(kept), tests_of(kept)
    study = numbers(found, tests)
    drawn = out.parent / FIGURE
    drawn.parent.mkdir(parents=True, exist_ok=True)
    write_whole(drawn, picking_figure(study))
    write_whole(in_package, f"{study.model_dump_json(indent=1)}\n")
    write_whole(out, page(found, tests))


def page(found: Measured, tests: Mapping[tuple[str, int], Test]) -> str:
    """The page that the records make."""
    pools = sorted({cell.pool for cell in found}, key=rank)
    return "".join(
        [
            HEAD.format(
                figure=FIGURE,
                answer=in_short(found),
                detail=in_detail(found),
                batch=STUDY["batch_size"],
                **RATES,
                paper=PAPERS_WAY["learning_rate"],
            ),
            POOLS,
            *(_pool_row(pool, found, tests) for pool in pools),
            NOTE,
            "## Every cell\n",
            *(part for pool in pools for part in _of_pool(pool, found)),
            REACH,
            *_reaching(found, pools),
            CHOOSING.format(rule=RULE),
            *_choosing(found),
            MISSING,
            *_missing(found),
        ]
    )


def _pool_row(pool: Pool, found: Measured, tests: Mapping[tuple[str, int], Test]) -> str:
    trained = {seed: one for cell, seeds in found.items() if cell.pool == pool for seed, one in seeds.items()}
    of = [tests[pool.student, seed] for seed in trained]
    calls = [test.record["teacher calls"] for test in of]
    return _row(
        pool.name,
        len(trained),
        f"{mean(one.record['taken of'] for one in trained.values()):,.0f}",
        f"{100 * mean(one.record['gap share'] for one in trained.values()):.1f} %",
        f"{mean(test.mean(test.before) for test in of):.1f}",
        f"{mean(test.mean(test.teacher) for test in of):.1f}",
        f"{mean(call['annotate'] for call in calls):,.0f}",
        f"{mean(call['identify'] for call in calls):,.0f}",
    )


def _of_pool(pool: Pool, found: Measured) -> Iterable[str]:
    yield f"\n### {pool.name[0].upper()}{pool.name[1:]}\n{COLUMNS}"
    cells = [cell for cell in found if cell.pool == pool]
    for cell in sorted(cells, key=lambda cell: (cell.steps or 10**6, ARMS.index(cell.arm))):
        by_seed = found[cell]
        in_pool = gain(by_seed.values(), as_in_pool=True)
        ahead, taken = lead(found, cell), sum(one.record["held out"]["accepted"] for one in by_seed.values())
        yield _row(
            f"{cell.steps:,}" if cell.steps else f"{over(by_seed, lambda one: one.record['result']['steps']):.0f}",
            cell.arm,
            len(by_seed),
            f"{over(by_seed, lambda one: one.record['training']):,.0f}",
            f"{100 * over(by_seed, lambda one: one.record['gaps trained on'] / one.record['training']):.0f} %",
            f"{over(by_seed, lambda one: one.after):.1f}",
            said(gain(by_seed.values())),
            said(ahead) if ahead else "",
            f"{in_pool.score:+z.1f} {over_images(in_pool)}",
            f"{over(by_seed, lambda one: one.closed):.0f} %",
            f"{over(by_seed, lambda one: one.forgotten):.1f} %",
            f"{taken} of {len(by_seed)}",
            f"{over(by_seed, lambda one: one.record['CPU seconds']):.0f}",
        )


def _reaching(found: Measured, pools: Sequence[Pool]) -> Iterable[str]:
    for pool in pools:
        for arm in (GAPS, HALF, ALL):
            reached = steps_to_reach(found, Cell(pool, arm, 0))
            if reached:
                after = f"{reached.after:,.0f} steps" if reached.after else "not reached"
                yield _row(pool.name, arm, reached.seeds, f"{reached.last:,} steps", after)


def _choosing(found: Measured) -> Iterable[str]:
    for cell, as_in_pool, best, ahead in sorted(choices(found), key=lambda one: (one.as_in_pool, *_place(one.cell))):
        test = "as in the pool" if as_in_pool else "as it is"
        holds = "yes" if ahead.images[1] >= 0 else "**no**"
        yield _row(cell.pool.name, f"{cell.steps:,}", cell.arm, test, best, ahead.of, said(ahead), holds)


def _place(cell: Cell) -> tuple[tuple[int, bool, int], int]:
    return rank(cell.pool), cell.steps


def _missing(found: Measured) -> Iterable[str]:
    planned = {cell: len(tier.seeds) for tier in TIERS for cell in tier.cells}
    for pool in dict.fromkeys(cell.pool for cell in planned):
        missing = [_in_words(cell) for cell in planned if cell.pool == pool and cell not in found]
        fewer = [
            f"{_in_words(cell)} ({count - len(found[cell])} more)"
            for cell, count in planned.items()
            if cell.pool == pool and 0 < len(found.get(cell, {})) < count
        ]
        if missing:
            yield f"- {pool.name}: {'; '.join(missing)}\n"
        if fewer:
            yield f"- {pool.name}, of more seeds: {'; '.join(fewer)}\n"


def _in_words(cell: Cell) -> str:
    return f"{cell.arm}, {f'{cell.steps:,} steps' if cell.steps else 'one epoch'}"


def _row(*columns: object) -> str:
    return f"| {' | '.join(map(str, columns))} |\n"
