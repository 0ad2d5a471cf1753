"""Levelling with the product and with TRL's SFTTrainer, on the same rows: time of an optimiser step, peak memory.

With a still tower, which learns on neither side, two epochs are trained: what is computed once counts as often as in a
training.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

import torch

import parityalign as pa
from parityalign.models import give_back_memory
from parityalign.tasks import load_task
from parityalign.training import trainer
from parityalign.training.modules import freeze, linear_layers
from real_size.asking import limit
from real_size.data import pairs_file
from real_size.measuring import Sample, busy_share, peak_gigabytes, synchronise, watched

EPOCHS_OF_STILL = 2
_STILL = {"vision": 0.0, "connector": 1.0, "language": 1.0}
_USUAL = 1.5
"""Steps that took longer than so many times the median had a look or a checkpoint in them."""


class _Steps:
    """A run's progress: when each optimiser step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, step: str, done: int, total: int) -> None:
        if step == "level" and done:
            synchronise()
            self.ends.append(time.time())


def ours(
    folder: Path,
    student: Path,
    paths: Sequence[Path],
    level: dict[str, Any],
    *,
    questions: int = 1,
    still: bool = False,
) -> dict[str, Any]:
    """Levels through a run whose pairs come with both models' answers, so many about each picture."""
    steps = _Steps()
    trainer.EVALUATIONS = 1  # a few steps are trained, each of which would have a look and a checkpoint
    pairs = pairs_file(folder, [*paths], questions)
    run = pa.open_run(
        folder / f"level-{student.name}-{level['method']}-{questions}",
        progress=steps,
        teacher=f"hf:{student}",
        student=f"hf:{student}",
        tasks={"textvqa": {"pairs": {"file": str(pairs), "answers": "given"}}},
        loading={"student": {"max_pixels": limit(student)}},
        level={
            "held_out": 0.05,
            "held_out_pairs": 2,
            "patience": 1000,
            "replay": 0,
            "lr_multipliers": {"vision": 0 if still else 1},
            **level,
        },
    )
    with watched() as samples:
        run.upto("level")
    return _told(steps.ends, level["batch_size"], samples, still=still)


def trl(
    folder: Path,
    student: Path,
    paths: Sequence[Path],
    level: dict[str, Any],
    *,
    workers: int,
    questions: int = 1,
    still: bool = False,
) -> dict[str, Any]:
    """Trains with SFTTrainer on the same rows; the most rows at once that fit."""
    rows = level["batch_size"]
    asked = [(path, number) for path in paths for number in range(questions)]
    while True:
        try:
            return _trl(folder, student, asked, level, rows, workers, still=still)
        except torch.cuda.OutOfMemoryError:
            if rows == 1:
                raise
        # Outside the `except`: until the exception is gone, its traceback keeps what filled the memory.
        rows //= 2
        give_back_memory()
        torch.cuda.reset_peak_memory_stats()


def _trl(
    folder: Path,
    student: Path,
    asked: Sequence[tuple[Path, int]],
    level: dict[str, Any],
    rows: int,
    workers: int,
    *,
    still: bool,
) -> dict[str, Any]:
    from datasets import Dataset, Image
    from datasets import Sequence as Several
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            synchronise()
            ends.append(time.time())

    prompt = load_task("textvqa").answer_prompt
    data = Dataset.from_list(
        [
            {
                "images": [str(path)],
                "prompt": [
                    {"role": "user", "content": prompt.format(question=f"What is the number of square {number}?")}
                ],
                "completion": [{"role": "assistant", "content": f"red {number}"}],
            }
            for path, number in asked
        ]
    ).cast_column("images", Several(Image()))
    half, opened = torch.cuda.is_available(), cast(Any, AutoProcessor)
    precision = torch.bfloat16 if half and level["method"] == "lora" else torch.float32  # as ours
    model = AutoModelForImageTextToText.from_pretrained(student, dtype=precision)
    if still and level["method"] == "full":
        freeze(model, _STILL)
    adapted = linear_layers(model, _STILL) if still else "all-linear"
    adapter = LoraConfig(target_modules=adapted, r=16, lora_alpha=32)
    trains = SFTTrainer(
        model,
        SFTConfig(
            output_dir=str(folder / "trl"),
            max_steps=level["max_steps"],
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=level["batch_size"] // rows,
            learning_rate=level["learning_rate"],
            dataloader_num_workers=workers,
            max_length=None,
            bf16=half,
            use_cpu=not half,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=data,
        processing_class=opened.from_pretrained(
            student, use_fast=False, **({"max_pixels": pixels} if (pixels := limit(student)) else {})
        ),
        peft_config=adapter if level["method"] == "lora" else None,
        callbacks=[Clock()],
    )
    with watched() as samples:
        trains.train()
    return _told(ends, level["batch_size"], samples, still=still) | {"rows_at_once": rows}


def _told(ends: Sequence[float], rows: int, samples: list[Sample], *, still: bool) -> dict[str, Any]:
    """The median step counts, so that the first ones and looks in between do not; busy is the GPU in steps like it.

    With a still tower each epoch has its median, and the step is their mean.
    """
    steps = [*zip(ends, ends[1:], strict=False)]
    taken = [later - sooner for sooner, later in steps]
    half = len(taken) // EPOCHS_OF_STILL
    epochs = [median(taken[:half]), median(taken[-half:])] if still else [median(taken)]
    step = mean(epochs)
    usual = [
        sample
        for sooner, later in steps
        for sample in samples
        if sooner <= sample.at <= later and later - sooner <= _USUAL * step
    ]
    return {
        "step_s": step,
        **({"step_of_last_epoch_s": epochs[-1]} if still else {}),
        "examples_per_s": rows / step,
        "peak_gb": peak_gigabytes(),
        "busy": busy_share(usual),
    }
