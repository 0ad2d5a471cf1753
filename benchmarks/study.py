"""When does picking gaps pay: students trained on gaps, on all pairs, on random ones, at rare and frequent gaps.

    python benchmarks/study.py [--runs runs/study] [--seeds 5] [--workers 2] [--page-only]

Each seed is a run of the demo with pictures of its own, and one more with another seed's levelled student on the same
pictures and pairs. Every training is a student of the product, by its own functions and for as many steps as the others
of its cell; it is scored on the seed's own test, 2,400 questions, whose pictures no choice has seen. Finished trainings
stand in the records and are not done again, so it may be stopped and started at any time; the page, its figure and the
numbers that come with the package are made from the records alone.
"""

import argparse
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import parityalign as pa
from parityalign.cli.run_commands import DEMO_CONFIG
from parityalign.config import read_config
from parityalign.core import DEMO_DATA, RunFolder
from parityalign.demo import write_demo_data
from picking.cells import TIERS
from picking.page import write
from picking.trainings import Seed, refuse_another_demo


def demo_of(runs: Path, seed: int, *, pictures: int | None = None) -> pa.OpenRun:
    """A run of the demo with a seed, its pictures drawn.

    Args:
        runs: The folder of the runs.
        seed: Which.
        pictures: How many in the pool of each task; None: the demo's number.
    """
    folder = runs / f"demo-{seed}"
    with RunFolder(folder):  # marks it as one, which a folder that holds only `data` is not
        write_demo_data(folder / DEMO_DATA, seed, lambda *_: None, pictures=pictures)
    return pa.open_run(read_config(DEMO_CONFIG, folder).model_copy(update={"seed": seed}))


def work(runs: Path, count: int, seeds: range, out: Path) -> None:
    """One worker's part: tier by tier, all of its seeds before the next tier."""
    with ExitStack() as open_runs:
        mine = {seed: Seed(runs, count, seed, out, open_runs) for seed in seeds}
        for tier in TIERS:
            for seed, each in mine.items():
                if seed in tier.seeds:
                    each.do(tier.cells)


def train(count: int) -> None:
    """Trains in so many workers; ends them with this process.

    Raises:
        CalledProcessError: One of them failed; what it wrote says why.
    """
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, *sys.argv, "--worker", str(number)] for number in range(count)]
    workers = [subprocess.Popen(command, env=alone) for command in commands]
    try:
        for worker in workers:
            if worker.wait():
                raise subprocess.CalledProcessError(worker.returncode, worker.args)
    finally:
        for worker in workers:
            worker.terminate()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/study"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--records", type=Path, default=Path("docs/study"))
    parser.add_argument("--out", type=Path, default=Path("docs/results-picking.md"))
    parser.add_argument("--numbers", type=Path, default=Path("src/parityalign/report/picking.json"))
    parser.add_argument("--page-only", action="store_true", help="make the page of the records that there are")
    parser.add_argument("--worker", type=int, help="be one of the workers")
    given = parser.parse_args()
    runs = given.runs.absolute()
    if not given.page_only:
        refuse_another_demo(given.records)
    if given.worker is not None:
        work(runs, given.seeds, range(given.worker, given.seeds, given.workers), given.records)
        return
    if not given.page_only:
        for seed in range(given.seeds):
            demo_of(runs, seed).upto()
        train(given.workers)
    write(given.records, given.out, given.numbers)


if __name__ == "__main__":
    main()
