"""How fast a student trains on this machine: a few steps of its training, of which nothing is kept."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from parityalign.config import RunConfig, split_model
from parityalign.core import Pair
from parityalign.models import quieten
from parityalign.training.collator import Example
from parityalign.training.train import examples_of, fast_student, trainer_of
from parityalign.training.trainer import LevelTrainer, Training
from parityalign.training.weighted_loss import WeightedLoss

_STEPS = 5
"""Optimiser steps; the first, in which memory is found and kernels are picked, does not count."""
_LOOKS = 8
"""Pictures that a frozen tower is timed on."""


class Pace(NamedTuple):
    """What training takes."""

    trained: float
    """Seconds for an example in an optimiser step."""
    looked_at: float
    """Seconds for a held-out example whose loss is measured."""
    look: float = 0.0
    """Seconds more for each picture where a frozen tower looks at it once."""
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
            looked, look = _trained(trainer, training, clock)
        finally:
            trainer.release()
    return Pace((watch.steps[-1] - watch.steps[0]) / ((_STEPS - 1) * batch_size), looked / len(held_out), look)


def _trained(trainer: LevelTrainer, training: Training, clock: Callable[[], float]) -> tuple[float, float]:
    """Trains; returns the seconds of a look at the held-out examples, and of a frozen tower's at a picture."""
    with closing(trainer.batches), fast_student(trainer, training.settings, _nobody, _STEPS):
        trainer.held_out_loss()  # all pictures are prepared then, as after the first epoch
        began = clock()
        trainer.held_out_loss()
        looked = clock() - began
        look = _look(trainer, training.held_out[:_LOOKS], clock)
        trainer.train()
    return looked, look


def _look(trainer: LevelTrainer, examples: Sequence[Example], clock: Callable[[], float]) -> float:
    """Its mean over the examples' pictures; 0 where the tower learns, or looks each time."""
    student, tower = trainer.model, trainer.batches.tower
    if student is None or tower is None:
        return 0.0
    pictures = [trainer.batches.row_of(example).encoded for example in examples]
    began = clock()
    for picture in pictures:
        float(tower.look(student, [picture])[0].sum())  # waits for a GPU
    return (clock() - began) / len(pictures)


class _Watch:
    """The progress of a training: when each step ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.steps: list[float] = []
        self._clock = clock

    def __call__(self, _step: str, _done: int, _total: int) -> None:
        self.steps.append(self._clock())


def _nobody(_text: str) -> None:
    """Takes what is told of kernels."""
