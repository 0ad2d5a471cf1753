"""What it is worth in training that questions about one picture share a row: steps a second, shared and apart.

    python benchmarks/shared_rows.py [--pictures 4] [--questions 3] [--rounds 5]

One process trains each student on the same steps, in turn with rows shared and apart, so that what else the machine
does falls on both; the median step counts. Pictures are prepared before. The bundled student sees pictures of the demo,
the others are real classes of tiny size (`real_size/models.py`) with pictures of 1024x768 at one megapixel.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch

from parityalign.config import LevelSettings, LoadingSettings, LrMultipliers
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.demo.worlds import WORLDS
from parityalign.tasks import load_task
from parityalign.training import train
from parityalign.training.collator import Example
from parityalign.training.trainer import LevelTrainer, Training
from parityalign.training.weighted_loss import WeightedLoss
from real_size.asking import MEGAPIXEL
from real_size.data import pictures
from real_size.models import write_model


def main() -> None:
    """Prints a line for each student."""
    asks = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asks.add_argument("--pictures", type=int, default=4, help="in a step")
    asks.add_argument("--questions", type=int, default=3, help="about each of them")
    asks.add_argument("--rounds", type=int, default=5)
    given = asks.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory(prefix="bench-rows-") as folder:
        root = Path(folder)
        large = pictures(root / "large", given.pictures)
        students = {
            "embedded:student": (EMBEDDED_MODELS / "student", _of_the_demo(root / "demo", given.pictures * 8), None),
            **{
                f"{name}, tiny": (write_model(name, root / name, tiny=True), large, MEGAPIXEL)
                for name in ("smolvlm-500m", "qwen2-vl-2b")
            },
        }
        for name, (student, paths, pixels) in students.items():
            examples = [_example(path, number) for path in paths for number in range(given.questions)]
            shared, apart = _seconds(_trainer(student, pixels, examples, root), examples, given.rounds)
            print(
                f"{name:20} {len(examples):3} pairs a step about {len(paths):2} pictures: {1 / shared:6.2f} steps a "
                f"second shared, {1 / apart:6.2f} apart: {apart / shared:.2f} times"
            )


def _of_the_demo(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        draw = [*WORLDS.values()][number % len(WORLDS)]
        draw(Random(number)).image.save(path)
    return paths


def _example(path: Path, number: int) -> Example:
    prompt = load_task("textvqa").answer_prompt.format(question=f"What is the number of square {number}?")
    return Example(str(path), prompt, f"red {number}", f"{path.stem}-{number}")


def _trainer(student: Path, pixels: int | None, examples: Sequence[Example], root: Path) -> LevelTrainer:
    multipliers = LrMultipliers(vision=1)
    level = LevelSettings(
        method="full", learning_rate=1e-5, lr_multipliers=multipliers, epochs=1, batch_size=len(examples)
    )
    objective = WeightedLoss({"answer": (1, 1)})
    loading = LoadingSettings(max_pixels=pixels, workers=0)
    training = Training(str(student), loading, level, objective, 0, lambda *_: None, list(examples), list(examples[:1]))
    made = train.trainer_of(training, root / "work")
    made.current_gradient_accumulation_steps = 1
    return made


def _seconds(trainer: LevelTrainer, examples: Sequence[Example], rounds: int) -> tuple[float, float]:
    """Of a step's forward and backward passes, with rows shared and apart."""
    sharing, took = trainer.sharing, {True: list[float](), False: list[float]()}
    student: Any = trainer.model
    if sharing is None:
        raise ValueError("this student's questions share no rows")
    for _ in range(rounds + 1):
        for shared, times in took.items():
            trainer.sharing = sharing if shared else None
            step = {"begun": trainer.batches.begin(examples)}
            began = time.perf_counter()
            trainer.training_step(student, step)
            times.append(time.perf_counter() - began)
    return median(took[True][1:]), median(took[False][1:])


if __name__ == "__main__":
    main()
