"""What of the study comes with the package, for the reports of runs."""

from collections.abc import Mapping
from statistics import mean

from parityalign.report import DemoSeeds, Lead, PickingStudy, StudiedPool
from picking.cells import GAPS, WEAK, Cell, Pool, rank
from picking.measured import Measured, Test, Trained, lead

DIGITS = 7
"""So many that no mean lies in the middle between two, where each machine would round its own way."""


def numbers(found: Measured, tests: Mapping[tuple[str, int], Test]) -> PickingStudy:
    """Leads over random pairs by pool and steps, of pools with right labels, and what the demo's seeds gained."""
    pools = sorted({cell.pool for cell in found if cell.arm == GAPS and not cell.pool.noise}, key=rank)
    studied = (_pool(pool, found, tests) for pool in pools)
    return PickingStudy(
        questions=round(mean(len(test.before) for test in tests.values())),
        pools=tuple(pool for pool in studied if pool.leads),
        demo=_demo(found),
    )


def _pool(pool: Pool, found: Measured, tests: Mapping[tuple[str, int], Test]) -> StudiedPool:
    cells = sorted(cell for cell in found if cell.pool == pool and cell.arm == GAPS)
    trained = [one for cell in cells for one in found[cell].values()]
    before = [tests[pool.student, seed] for seed in {seed for cell in cells for seed in found[cell]}]
    return StudiedPool(
        student=pool.student,
        gap_share=_rounded(mean(one.record["gap share"] for one in trained)),
        wrong_before=_rounded(mean(1 - float(test.right.mean()) for test in before)),
        trained=len(trained),
        taken=sum(one.record["held out"]["accepted"] for one in trained),
        leads={cell.steps: of_cell for cell in cells if (of_cell := _lead(found, cell))},
    )


def _lead(found: Measured, cell: Cell) -> Lead | None:
    value = lead(found, cell)
    if value is None:
        return None
    low, high = value.seeds or (0.0, 0.0)
    return Lead(
        score=_rounded(value.score),
        seeds=value.of,
        # Of two seeds the interval says nothing but that they are two.
        over_seeds=(_rounded(low), _rounded(high)) if value.seeds and value.of > 2 else None,
        over_images=(_rounded(value.images[0]), _rounded(value.images[1])),
    )


def _demo(found: Measured) -> DemoSeeds:
    """Of the budget that most seeds have, the longest of several."""
    steps = max((len(by_seed), cell.steps) for cell, by_seed in found.items() if _is_the_demo(cell))[1]
    by_seed: Mapping[int, Trained] = found[Cell(WEAK, GAPS, steps)]
    return DemoSeeds(steps=steps, gains=tuple(_rounded(by_seed[seed].gain) for seed in sorted(by_seed)))


def _is_the_demo(cell: Cell) -> bool:
    return cell.pool == WEAK and cell.arm == GAPS


def _rounded(value: float) -> float:
    return round(float(value), DIGITS)
