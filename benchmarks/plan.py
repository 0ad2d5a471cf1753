"""How far `parityalign plan` is off: the demo's run planned, done, and planned again; time, peak memory and disk.

    python benchmarks/plan.py [--pictures 200] [--folder FOLDER]

Time is CPU seconds of the process on both sides, so that what else the machine does hardly counts; memory is that of
the first plan, as the process is larger by the second. Ratios are what was planned divided by what was measured: 1 is
the truth.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from threading import Event, Thread
from typing import NamedTuple

import parityalign as pa
from parityalign.config import RunConfig, load_config
from parityalign.core import RunFolder
from parityalign.demo import write_demo_data
from parityalign.models import held_meanwhile
from parityalign.pipeline import Run, align
from parityalign.planning import PlanOptions, Projection, project_run
from parityalign.planning.projection import ProjectionRow

DEMO = Path(pa.__file__).parent / "demo" / "demo.yaml"
STAGES = ("annotate", "identify", "level", "evaluate", "forgotten")
_ALLOWED = 0.15


class Amounts(NamedTuple):
    """What a stage takes."""

    seconds: float
    """Of CPU."""
    memory: float
    """The most bytes that the process holds meanwhile."""
    disk: float
    """The most bytes in the run folder meanwhile, without the drawn pictures."""


def main() -> None:
    """Plans, runs, plans again, and prints the ratios."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="bench-plan-", dir=asked.folder) as folder:
        run = Path(folder) / "run"
        with RunFolder(run):
            write_demo_data(run / "data", 0, _mute, pictures=asked.pictures)
        config = load_config(DEMO, run)
        plans = [_planned(config)]
        took = dict[str, Amounts]()
        pa.open_run(config, progress=_mute).work(lambda run: took.update(_took(run, run.folder.path)))
        plans.append(_planned(config))
        _tell(plans, {stage: took[stage] for stage in STAGES if stage in took})


def _planned(config: RunConfig) -> Projection:
    began = time.process_time()
    plan = project_run(config, PlanOptions(clock=time.process_time))
    print(f"planned in {time.process_time() - began:.0f} s of CPU", file=sys.stderr, flush=True)
    return plan


def _took(run: Run, folder: Path) -> Iterator[tuple[str, Amounts]]:
    """What each stage takes, models loaded by it included."""
    stages = align(run)
    while True:
        began = time.process_time()
        with _most_below(folder) as most:
            stage, memory = held_meanwhile(lambda: next(stages, None))
        if stage is None:
            return
        if memory is None:
            sys.exit("the memory of this process cannot be measured here")
        took = Amounts(time.process_time() - began, memory, max(most))
        print(stage, took, file=sys.stderr, flush=True)
        yield stage, took


@contextmanager
def _most_below(folder: Path) -> Iterator[list[int]]:
    """How many bytes lie in a folder, looked at again and again."""
    seen, over = [0], Event()

    def look() -> None:
        while not over.wait(0.5):
            seen.append(sum(map(_size, folder.rglob("*"))))

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _size(path: Path) -> int:
    try:
        return 0 if "data" in path.parts else path.lstat().st_size
    except OSError:  # it is gone by now
        return 0


def _tell(plans: list[Projection], took: dict[str, Amounts]) -> None:
    print("| stage | planned, s of CPU | measured | ratio | planned, MB | measured | ratio |")
    print("|---|---|---|---|---|---|---|")
    for stage, measured in took.items():
        rows = [[row for row in plan.rows if _stage_of(row) == stage] for plan in plans]
        seconds = mean(sum(row.seconds or 0.0 for row in each) for each in rows)
        memory = max(row.memory or 0.0 for row in rows[0])
        print(f"| {stage} | {_compared(seconds, measured.seconds, 1)} | {_compared(memory, measured.memory, 1e6)} |")
    every = mean(plan.seconds for plan in plans), sum(each.seconds for each in took.values())
    most = plans[0].memory or 0.0, max(each.memory for each in took.values())
    print(f"| all | {_compared(*every, 1)} | {_compared(*most, 1e6)} |")
    disk = mean(plan.disk or 0.0 for plan in plans), max(each.disk for each in took.values())
    print(f"disk, MB: {_compared(*disk, 1e6)}".replace(" | ", ", "))
    off = [abs(planned / measured - 1) for planned, measured in (every, most, disk)]
    print("within 15 %" if max(off) <= _ALLOWED else "not within 15 %")


def _stage_of(row: ProjectionRow) -> str:
    return row.stage.removeprefix("evaluate ") if row.stage.endswith("forgotten") else row.stage.split()[0]


def _compared(planned: float, measured: float, unit: float) -> str:
    return f"{planned / unit:,.0f} | {measured / unit:,.0f} | {planned / measured:.2f}"


def _mute(step: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares a plan with the run.")
    parser.add_argument("--pictures", type=int, default=200, help="a task")
    parser.add_argument("--folder", help="where the run lies; default: the system's temporary folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
