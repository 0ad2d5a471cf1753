"""How long it takes until a command begins, beside the libraries that it cannot do without, and how fast metrics are.

    python benchmarks/startup.py [--times 5] [--pairs 20000]

Every start is a fresh process, the two of a line taking turns, and the fastest of each counts: what else the machine
does slows both. Ratios are what to compare between machines.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from random import Random

from parityalign.metrics import anls, chartqa_relaxed_accuracy, textvqa_accuracy, vqa_accuracy_official

STARTS = {
    "import parityalign": ("import parityalign", "pass"),
    "parityalign --help": ("from parityalign.cli import main; main()", "import typer, rich, pydantic, yaml"),
    "what training needs": (
        "from parityalign import training; training.make_leveller",
        "import torch; from transformers import Trainer",
    ),
}
"""What is started: our code, and the bare libraries beside it."""
METRICS = (anls, chartqa_relaxed_accuracy, textvqa_accuracy, vqa_accuracy_official)
WORDS = ("tea", "Stop", "12.5 %", "a red bus", "coca cola", "1984", "two", "no")


def main() -> None:
    """Prints a line for each start and each metric."""
    asked = _arguments()
    for name, codes in STARTS.items():
        ours, bare = _fastest(codes, asked.times)
        print(f"{name:24}{ours:6.2f} s, bare libraries {bare:6.2f} s: {ours / bare:.2f} times")
    nothing = _seconds(lambda prediction, references: None, asked.pairs)
    for metric in METRICS:
        name, took = metric.__name__, _seconds(metric, asked.pairs)
        print(f"{name:24}{asked.pairs / took:9,.0f} answers a second, {took / nothing:.0f} times an empty loop")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=20_000)
    return parser.parse_args()


def _fastest(codes: tuple[str, str], times: int) -> list[float]:
    """The shortest of so many starts of each, in seconds."""
    rounds = [[_start(code) for code in codes] for _ in range(times)]
    return [min(each) for each in zip(*rounds, strict=True)]


def _start(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _seconds(score: Callable[[str, list[str]], object], pairs: int) -> float:
    """How long the same drawn answers take."""
    chance = Random(0)
    drawn = [(chance.choice(WORDS), [chance.choice(WORDS) for _ in range(10)]) for _ in range(pairs)]
    began = time.perf_counter()
    for prediction, references in drawn:
        score(prediction, references)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
