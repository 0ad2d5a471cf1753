"""Levels the student: a transformers Trainer with our loss, early stopping, and resuming that changes nothing."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from parityalign.config import LevelSettings
from parityalign.disk import folder_digest, write_whole
from parityalign.opening import open_processor, quieten
from parityalign.prompting import stop_tokens
from parityalign.records import Pair, content_id
from parityalign.seams import Leveller, LevelResult, Progress
from parityalign.training.batches import AnswerBatches, Example
from parityalign.training.weights import (
    open_checkpoint,
    open_student,
    save_like,
    with_adapter,
)

Batch = dict[str, torch.Tensor]
Objective = Callable[[nn.Module, Mapping[str, torch.Tensor]], torch.Tensor]
"""(model, batch) -> scalar loss; defined by a file in `objectives/`."""

LOOKS = 8
"""Times that the held-out loss is measured in a training, and a checkpoint written."""
COMPLETE = "complete"
"""File that is written into a checkpoint last."""
PLAN = "plan"
"""File in the folder of checkpoints that says what training they are of."""


@dataclass(frozen=True)
class Training:
    """One levelling, from the same beginning to the same end however often it is called."""

    student: str
    """Hugging Face folder or hub id."""
    settings: LevelSettings
    objective: Objective
    seed: int
    """Decides the order of the pairs and an adapter's first weights."""
    progress: Progress
    train: list[Example]
    held_out: list[Example]


def make_leveller(
    student: str,
    answer_prompts: Mapping[str, str],
    *,
    settings: LevelSettings,
    objective: Objective,
    seed: int,
    progress: Progress,
) -> Leveller:
    """A leveller for the student at `student`, a Hugging Face folder or hub id.

    While it trains, its checkpoints lie beside the result. Called again with the same pairs after a kill, it goes on
    from the last of them and ends with the same weights.

    Args:
        student: Where the student is.
        answer_prompts: Task name -> format string with `{question}`, the same as in identify and evaluate.
        settings: How to train.
        objective: What to minimise.
        seed: Decides the order of the pairs and an adapter's first weights.
        progress: Told the optimiser steps done and in all.
    """

    def examples(pairs: Sequence[Pair]) -> list[Example]:
        return [
            Example(pair.image, answer_prompts[pair.task].format(question=pair.question), pair.answer) for pair in pairs
        ]

    def level(pairs: Sequence[Pair], held_out: Sequence[Pair], out: Path) -> LevelResult:
        quieten()
        # Pairs of a single image cannot be split; then the training pairs are what there is to judge by.
        data = examples(pairs), examples(held_out or pairs)
        return _level(Training(student, settings, objective, seed, progress, *data), out)

    return level


def _level(training: Training, out: Path) -> LevelResult:
    work = _work_folder(out, training)
    trainer = _trainer(training, work)
    before = trainer.held_out_loss()
    state = _train(trainer, work, training.settings.patience)
    best, after = state.best_global_step, state.best_metric
    if best and after is not None and after < before:
        adapter = training.settings.method == "lora"
        model = open_checkpoint(training.student, _checkpoint(work, best), adapter=adapter)
    else:  # nothing that was learnt is better than what came in
        best, after, model = 0, before, open_student(training.student)
    save_like(training.student, model, out)
    (work / PLAN).unlink()  # first: what a kill leaves of the folder must not be gone on from
    shutil.rmtree(work)
    return LevelResult(state.global_step, best, before, after, _skipped(state))


class LevelTrainer(Trainer):
    """Minimises an objective on the training examples; judges by its mean over the held-out ones."""

    def __init__(self, training: Training, student: nn.Module, batches: AnswerBatches, work: Path) -> None:
        super().__init__(
            model=student,
            args=_arguments(training, work),
            data_collator=batches,
            train_dataset=training.train,
            eval_dataset=training.held_out,
            callbacks=[Watch(training.progress, training.settings.patience, work)],
        )
        self.remove_callback(PrinterCallback)
        self._training, self._student, self._batches = training, student, batches
        # Their running statistics belong to pretraining: a few thousand pairs, half of them gaps, would shift them
        # for all images. In training they are used as in inference; only scale and shift are learnt.
        self._batch_norms = [
            module for module in student.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The objective on one batch."""
        for module in self._batch_norms:
            module.eval()
        return self._training.objective(model, inputs)

    def training_step(
        self, model: nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward; where loss or gradient is not finite, the weights stay and the step is counted."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if not (torch.isfinite(loss) and torch.isfinite(nn.utils.get_total_norm(gradients))):
            model.zero_grad()  # without gradients the optimiser does nothing, not even weight decay
            self.log({"skipped": 1.0})
        return loss

    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        """Measures the held-out loss and tells the callbacks."""
        metrics = {"eval_loss": self.held_out_loss()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def held_out_loss(self) -> float:
        """The objective's mean over the labelled tokens of all held-out examples."""
        self._student.eval()
        device, rows = self.args.device, self.args.per_device_eval_batch_size
        total, tokens = 0.0, 0
        for start in range(0, len(self._training.held_out), rows):
            batch = self._batches(self._training.held_out[start : start + rows])
            batch = {key: value.to(device) for key, value in batch.items()}
            labelled = int((batch["labels"] != -100).sum())
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.args.bf16):
                total += float(self._training.objective(self._student, batch)) * labelled
            tokens += labelled
        return total / tokens


class Watch(TrainerCallback):
    """Reports progress, measures at the very end too, stops when patience is at its end, and marks checkpoints."""

    def __init__(self, progress: Progress, patience: int, work: Path) -> None:
        self._progress = progress
        self._patience = patience
        self._work = work

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """After each optimiser step."""
        self._progress("level", state.global_step, state.max_steps)
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """After each measurement of the held-out loss."""
        if _out_of_patience(state, self._patience):
            control.should_training_stop = control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """After all files of a checkpoint."""
        (_checkpoint(self._work, state.global_step) / COMPLETE).touch()


def _trainer(training: Training, work: Path) -> LevelTrainer:
    model, processor = open_student(training.student), open_processor(training.student)
    generation_config: Any = model.generation_config
    batches = AnswerBatches(processor, stop_tokens(processor.tokenizer, generation_config))
    set_seed(training.seed)  # before an adapter draws its first weights
    lora = training.settings.method == "lora"
    student = with_adapter(model, training.settings.lora_rank) if lora else model
    return LevelTrainer(training, student, batches, work)


def _arguments(training: Training, work: Path) -> TrainingArguments:
    settings = training.settings
    steps = settings.max_steps or settings.epochs * math.ceil(len(training.train) / settings.batch_size)
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(steps * settings.warmup),
        eval_strategy="steps",
        eval_steps=math.ceil(steps / LOOKS),
        save_strategy="steps",
        save_steps=math.ceil(steps / LOOKS),
        save_total_limit=3,  # the best, and two: a kill while one is written and another deleted leaves the third
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not on_gpu,
        bf16=_bf16_is_fast(on_gpu),
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        seed=training.seed,
        data_seed=training.seed,
    )


def _bf16_is_fast(on_gpu: bool) -> bool:
    """Whether the processor multiplies bfloat16 in hardware; emulated it is slower than float32."""
    if on_gpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch allowed
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def _train(trainer: LevelTrainer, work: Path, patience: int) -> TrainerState:
    """Trains from the start or the last complete checkpoint; does nothing if that one was the end."""
    last = _last_checkpoint(work)
    if last:
        state: TrainerState = TrainerState.load_from_json(str(last / "trainer_state.json"))
        if state.global_step >= trainer.args.max_steps or _out_of_patience(state, patience):
            return state
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    return trainer.state


def _out_of_patience(state: TrainerState, patience: int) -> bool:
    losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
    losses = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def _skipped(state: TrainerState) -> int:
    return sum("skipped" in entry for entry in state.log_history)


def _work_folder(out: Path, training: Training) -> Path:
    """The folder of checkpoints beside `out`; emptied if they are of another training."""
    folder = Path(training.student).expanduser()
    student = folder_digest(folder) if folder.is_dir() else training.student
    plan = content_id(student, repr((training.settings, training.seed, training.train, training.held_out)))
    work = out.with_name(f".{out.name}.training")
    note = work / PLAN
    if not note.is_file() or note.read_text(encoding="utf-8") != plan:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_whole(note, plan)
    return work


def _checkpoint(work: Path, step: int) -> Path:
    return work / f"checkpoint-{step}"


def _last_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that was written to its end; what a kill left behind is removed."""
    complete = []
    for folder in work.glob("checkpoint-*"):
        if (folder / COMPLETE).exists():
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    return max(complete, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
