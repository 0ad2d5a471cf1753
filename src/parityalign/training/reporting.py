"""Curves of a training in other programs, through transformers' own callbacks (`level.report_to`)."""

import os
from collections.abc import Mapping
from pathlib import Path

from transformers import Trainer
from transformers.integrations.integration_utils import TensorBoardCallback

from parityalign.core import (
    EXAMPLES_A_SECOND,
    GPU_BUSY,
    HELD_OUT_LOSS,
    LEARNING_RATE,
    TENSORBOARD,
    TRAINING_LOSS,
)

_CALLED: Mapping[str, str] = {
    TRAINING_LOSS: "loss",
    HELD_OUT_LOSS: "eval_loss",
    LEARNING_RATE: "learning_rate",
    EXAMPLES_A_SECOND: "examples_per_second",
    GPU_BUSY: "gpu_busy",
}
"""What the field's programs call the measured values."""


def set_reporters_up(trainer: Trainer, run: Path) -> None:
    """Has TensorBoard's files lie in the run folder, and not among checkpoints, which are deleted at the end."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and "TENSORBOARD_LOGGING_DIR" not in os.environ:
            callback.logging_dir = str(run / TENSORBOARD)


def report(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Hands measured values to the reporters only: in the trainer's state they would be part of every checkpoint."""
    logs = {_CALLED[name]: value for name, value in values.items()}
    trainer.control = trainer.callback_handler.on_log(trainer.args, trainer.state, trainer.control, logs)
