"""How fast a student trains on this machine: a few steps of its training, of which nothing is kept."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from parityalign.config import LevelSettings, RunConfig, split_model
from parityalign.core import Pair
from parityalign.models import quieten
from parityalign.training.train import examples_of, fast_student, trainer_of
from parityalign.training.trainer import LevelTrainer, Training
from parityalign.training.weighted_loss import WeightedLoss

_STEPS = 5
"""Optimiser steps; the first, in which memory is found and kernels are picked, does not count."""


class Pace(NamedTuple):
    """What training takes."""

    trained: float
    """Seconds for an example in an optimiser step."""
    looked_at: float
    """Seconds for a held-out example whose loss is measured."""
    seen: float = 0.0
    """Seconds more for a picture that comes first, where a frozen tower looks at each once."""
    memory: float | None = None
    """The most bytes that were held meanwhile; None: that cannot be measured here."""


def measured_pace(
    config: RunConfig,
    answer_prompts: Mapping[str, str],
    *,
    train: Sequence[Pair],
    batch_size: int,
    held_out: Sequence[Pair],
    clock: Callable[[], float],
) -> Pace:
    """Trains a run's student for a few steps, with the answers alone as the objective.

    Args:
        config: The run; nothing in its `level` is `auto`.
        answer_prompts: Task name -> format string with `{question}`.
        train: What is trained on, from the beginning again if there are fewer than the steps take.
        batch_size: Pairs of a step.
        held_out: What is looked at.
        clock: Gives seconds.

    Raises:
        UserError: The student cannot be trained so on this machine.
    """
    quieten()
    objective, watch = WeightedLoss({"answer": (1.0, 1.0)}), _Watch(clock)
    settings = config.level.model_copy(
        update={"max_steps": _STEPS, "batch_size": batch_size, "questions_together": False, "report_to": ()}
    )
    training = Training(
        split_model(config.student)[1],
        config.loading.student,
        settings,
        objective,
        config.seed,
        watch,
        train=examples_of([*islice(cycle(train), _STEPS * batch_size)], answer_prompts, objective),
        held_out=examples_of(held_out, answer_prompts, objective),
    )
    with TemporaryDirectory() as folder:
        trainer = trainer_of(training, Path(folder) / "work")
        trainer.args.eval_strategy, trainer.args.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
        trainer.args.train_sampling_strategy = "sequential"  # so that a step has a picture twice only if it has to
        try:
            first, again = _trained(trainer, settings, clock)
        finally:
            trainer.release()
    pictures = len({pair.image for pair in held_out})
    seen = max(0.0, first - again) / pictures if trainer.batches.tower else 0.0
    return Pace((watch.steps[-1] - watch.steps[0]) / ((_STEPS - 1) * batch_size), again / len(held_out), seen)


def _trained(trainer: LevelTrainer, settings: LevelSettings, clock: Callable[[], float]) -> tuple[float, float]:
    """Trains; returns the seconds of two looks at the held-out examples, the first of which prepares all pictures."""
    with closing(trainer.batches), fast_student(trainer, settings, _nobody, _STEPS):
        times = [clock()]
        for _ in range(2):
            trainer.held_out_loss()
            times.append(clock())
        trainer.train()
    return times[1] - times[0], times[2] - times[1]


class _Watch:
    """The progress of a training: when each step ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.steps: list[float] = []
        self._clock = clock

    def __call__(self, _step: str, _done: int, _total: int) -> None:
        self.steps.append(self._clock())


def _nobody(_text: str) -> None:
    """Takes what is told of kernels."""
