"""The cells of the study in the order in which they are trained, and their records.

A record is one line of JSON for each finished training, in a file for each seed. What has one is not trained again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from parityalign.core.files import cut_torn_line

OWN = 0
"""In place of a share: the pool's own gaps, all of them."""
GAPS, RANDOM, ALL, PAPER = "gaps and replay", "random pairs", "all pairs", "paper"
HALF, MOST = "half replay", "most replay"
TRUE, FORMAT = "true labels", "format only"
STUDY: Mapping[str, object] = {
    "method": "full",
    "lr_multipliers": {"vision": 0},
    "batch_size": 32,
    "replay": None,
    "held_out_pairs": 300,
    "interpolate": False,
}
"""Settings of every training besides the demo's: half as many pairs a step, and the tower as it was, to save time; no
interpolation, so that arms differ in their pairs alone."""
RATES: Mapping[str, float] = {"weak": 1e-3, "strong": 5e-4}
PAPERS_WAY: Mapping[str, object] = {"replay": 0.0, "epochs": 1, "learning_rate": 1e-4}


class Pool(NamedTuple):
    """What is chosen from."""

    student: str
    """`weak`: the embedded one; `strong`: one that a run of the demo levelled, on pictures of another."""
    share: int = OWN
    """Gaps in a hundred usable pairs; others were left out at random."""
    noise: int = 0
    """Of a hundred usable pairs so many have another's answer, which the teacher repeats."""

    @property
    def name(self) -> str:
        """In words."""
        gaps = f"{self.share} % gaps" if self.share else "its own gaps"
        return f"{self.student}, {gaps}" + (f", {self.noise} % wrong labels" if self.noise else "")


class Cell(NamedTuple):
    """One training."""

    pool: Pool
    arm: str
    steps: int
    """Optimiser steps; 0: one epoch."""

    @property
    def name(self) -> str:
        """Of a folder."""
        return "-".join(map(str, (*self.pool, self.arm, self.steps))).replace(" ", "_")


def cells(pools: Sequence[Pool], arms: Sequence[str], steps: Sequence[int]) -> list[Cell]:
    """All combinations, arms that are compared with one another next to each other."""
    return [Cell(pool, arm, count) for pool, count, arm in product(pools, steps, arms)]


def rank(pool: Pool) -> tuple[int, bool, int]:
    """The place of a pool among others."""
    return pool.noise, pool.student == "strong", pool.share or 100


STRONG, RARE, FEW, WEAK = Pool("strong"), Pool("weak", 10), Pool("weak", 20), Pool("weak")
THREE = (RARE, STRONG, WEAK)
NOISE = (10, 20)
NOISY = [pool._replace(noise=noise) for noise in NOISE for pool in THREE]
BOTH = (GAPS, RANDOM)


class Tier(NamedTuple):
    """Cells, and the seeds that train them before the next tier."""

    cells: Sequence[Cell]
    seeds: range


TIERS = (
    Tier(cells(THREE, BOTH, [100, 400]), range(2)),
    Tier([*cells(THREE, [TRUE, FORMAT, ALL], [400]), *cells(THREE, [PAPER], [0])], range(2)),
    Tier([*cells(THREE, [HALF], [400]), *cells([WEAK], [MOST], [400])], range(2)),
    Tier(cells(NOISY, BOTH, [400]), range(2)),
    Tier([*cells([FEW], [*BOTH, ALL], [400]), *cells([FEW], [PAPER], [0])], range(2)),
    Tier(cells(THREE, BOTH, [400]), range(4)),
    Tier(cells([RARE], BOTH, [1600]), range(2)),
    Tier(cells([WEAK], BOTH, [1600]), range(2)),
    Tier(cells([STRONG], BOTH, [1600]), range(2)),
    Tier(cells(THREE, BOTH, [800]), range(2)),
    Tier(cells([*THREE, FEW], BOTH, [100, 200, 400, 800]), range(5)),
    Tier([*cells([*THREE, FEW], [TRUE, FORMAT, ALL], [400]), *cells([*THREE, FEW], [PAPER], [0])], range(5)),
    Tier(cells([*NOISY, *(FEW._replace(noise=noise) for noise in NOISE)], BOTH, [400]), range(5)),
    Tier(cells(THREE, [ALL], [100, 800, 1600]), range(5)),
    Tier(cells([*THREE, FEW], BOTH, [1600]), range(5)),
)
"""The most decisive first, on all their seeds before the next, so what is there is balanced wherever it is stopped."""

Record = Mapping[str, Any]


def file_of(folder: Path, seed: int) -> Path:
    """The file with a seed's records."""
    return folder / f"seed-{seed}.jsonl"


def records(folder: Path) -> Iterator[Record]:
    """All records, seed by seed in the order in which they were made."""
    for path in sorted(folder.glob("seed-*.jsonl")):
        yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def cell_of(record: Record) -> Cell:
    """The cell of a training's record."""
    return Cell(Pool(**record["pool"]), record["arm"], record["steps"])


def add(folder: Path, seed: int, record: Record) -> None:
    """Appends a record."""
    folder.mkdir(parents=True, exist_ok=True)
    cut_torn_line(file_of(folder, seed))
    with file_of(folder, seed).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, separators=(",", ":")) + "\n")


def packed(scores: Sequence[float]) -> str:
    """Scores between 0 and 1 as text, two hexadecimal digits each: per cent."""
    return "".join(f"{round(100 * score):02x}" for score in scores)


def unpacked(text: str) -> list[float]:
    """The other way round."""
    return [value / 100 for value in bytes.fromhex(text)]
