"""Searches for inputs that break a door through which texts of strangers come in (`fuzz_targets/`).

    python tools/fuzz.py [--seconds 300] [TARGET ...]

Inputs are drawn anew each time, each target for so many seconds. A finding is shown as the smallest input that
Hypothesis can make of it, and tried first the next time (`.hypothesis/`); the exit status is then 1.
"""

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

FOLDER = Path(__file__).parent / "fuzz_targets"
SECONDS_AN_INPUT = 20
"""An input that takes longer is a finding."""
_INPUTS_A_ROUND = 500


class Target(NamedTuple):
    """A door, and what is put through it."""

    name: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]


class TakesTooLongError(Exception):
    """The time for one input is over."""


def target_names() -> list[str]:
    """The names of all targets, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if not file.stem.startswith("_"))


def load_target(name: str) -> Target:
    """The target in `fuzz_targets/NAME.py`."""
    module = import_module(f"fuzz_targets.{name}")
    return Target(name, module.INPUTS, module.check)


def search(target: Target, seconds: float) -> tuple[int, Exception | None]:
    """How many inputs were tried, and what the smallest one raised that broke the target."""
    tried, end = 0, time.monotonic() + seconds

    @settings(max_examples=_INPUTS_A_ROUND, deadline=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def one_round(each: object) -> None:
        nonlocal tried
        tried += 1
        with _limited():
            target.check(each)

    while time.monotonic() < end:
        try:
            one_round()
        except Exception as finding:  # noqa: BLE001  # whatever a target raises is what is looked for
            return tried, finding
    return tried, None


@contextmanager
def _limited() -> Iterator[None]:
    """Interrupts what takes longer than `SECONDS_AN_INPUT`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TakesTooLongError(f"an input takes more than {SECONDS_AN_INPUT} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_AN_INPUT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Searches the targets one after another; 1 if anything was found."""
    parser = argparse.ArgumentParser(description="Search for inputs that break a door.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all without one: {', '.join(target_names())}")
    parser.add_argument("--seconds", type=float, default=300, help="for each target")
    given = parser.parse_args()
    unknown = {*given.targets} - {*target_names()}
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(target_names())}")
    found = 0
    for name in given.targets or target_names():
        tried, finding = search(load_target(name), given.seconds)
        print(f"{name}: {tried} inputs, {'BROKEN' if finding else 'nothing found'}", flush=True)
        if finding:
            found += 1
            traceback.print_exception(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
