"""A transformers Trainer with our loss: micro-batches that fit into memory, early stopping, complete checkpoints."""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils.memory import clear_device_cache
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.training_args import OptimizerNames

from parityalign.config import LevelSettings, LoadingSettings
from parityalign.core import HELD_OUT_LOSS, LEARNING_RATE, TRAINING_LOSS, Details, Measures, Progress, Says, WorkFailed
from parityalign.models import Processor, bf16_is_fast, gpus_of, patch_side
from parityalign.training.ahead import Ahead
from parityalign.training.bundles import Limits, MicroBatch, Row, cut
from parityalign.training.checkpoints import checkpoint, complete
from parityalign.training.collator import AnswerCollator, Begun, Example, Join
from parityalign.training.compiling import Compiled
from parityalign.training.modules import lr_multipliers_by_module, parameter_groups
from parityalign.training.oom import Memory, RanOut
from parityalign.training.ranks import ALONE, Ranks
from parityalign.training.reporting import report, set_reporters_up
from parityalign.training.sampling import PictureSampler
from parityalign.training.sharded import divide_again, give_weights, keep_whole, whole, whole_weights
from parityalign.training.sharing import tried_sharing, tried_tower
from parityalign.training.speed import Speed
from parityalign.training.student import open_student
from parityalign.training.tower import room_for_states

Batch = dict[str, Any]


class Objective(Protocol):
    """The training objective; `WeightedLoss` is one."""

    needs: frozenset[str]
    """What its terms need besides the answers; with `view`, batches hold augmented views of the pictures."""

    @property
    def signals_digest(self) -> str:
        """A fingerprint of the teacher's stored signals; empty without any."""

    def __call__(self, model: nn.Module, batch: Mapping[str, Any], done: float = 1.0) -> torch.Tensor:
        """The mean loss over the labelled tokens of a batch, after a share `done` of the training."""

    def rationale(self, pair_id: str) -> tuple[str, str]:
        """A prompt and a reply to learn besides the answer; empty if there is none."""

    def joiner(self, processor: Processor) -> Join | None:
        """The function that makes the terms' tensors for a batch; None if they need none."""

    def recording_attention(self, model: nn.Module) -> AbstractContextManager[None]:
        """Records the model's attention in training, if a term needs it."""


EVALUATIONS = 8
"""Number of evaluations of the held-out loss in a training, each with a checkpoint."""
_PATCH = 16
"""Side of a patch in pixels, for towers without patches."""
_TRIED = 8
"""Examples that a trial takes at most."""
_TOLD = 200
"""Times in a training that the training loss is told, as a mean since the last time."""


@dataclass(frozen=True)
class Training:
    """One training, deterministic and resumable."""

    student: str
    """Hugging Face folder or hub id."""
    loading: LoadingSettings
    """The revision and the limit of pixels; training chooses precision and quantisation itself."""
    settings: LevelSettings
    objective: Objective
    seed: int
    """Seed of the order of the pairs and the adapter's initial weights."""
    progress: Progress
    train: list[Example]
    held_out: list[Example]
    fits: int | None = None
    """Most tokens and patches of a micro-batch that do not run out of memory, where that is known."""


class LevelTrainer(Trainer):
    """Minimises an objective on the training examples and evaluates it on the held-out ones.

    Attributes:
        batches: Collates examples into the student's inputs.
        sharing: How examples about one picture share a row; None: each has its own.
        memory: Decides the size of micro-batches.
        works_ahead: Whether a step is made ready while the device is at work on the one before.
        compiled: The student's layers where they are compiled.
    """

    def __init__(
        self, training: Training, student: nn.Module, batches: AnswerCollator, work: Path, ranks: Ranks = ALONE
    ) -> None:
        speed = Speed()
        super().__init__(
            model=student,
            args=_arguments(training, work, reports=ranks.first),
            data_collator=self._begin_step,
            train_dataset=training.train,
            eval_dataset=training.held_out,
            callbacks=[LevelCallback(training.progress, training.settings.patience, work, speed, ranks)],
        )
        self.remove_callback(PrinterCallback)
        set_reporters_up(self, work.parent)
        self._steps_begun = 0
        self._begun: Begun | None = None
        examples = [*training.train, *training.held_out]
        if not ranks.sharded:
            room = room_for_states(self.args.device, ranks.size)
            say = training.progress.say if isinstance(training.progress, Says) else lambda _: None
            batches.tower = tried_tower(student, batches, examples, room, bf16=self.args.bf16, say=say)
        self.sharing = tried_sharing(student, batches, examples)
        divide_again(student)
        alone = len(gpus_of(student)) == 1 and not ranks.shares_gpus
        self.memory = Memory(on_gpu=self.args.device.type == "cuda", fits=training.fits, learns=alone)
        if ranks.sharded:
            self.memory.never_begins_anew()
        self.batches = batches
        self._ahead = Ahead(batches.rows, lambda rows: self._cut(rows, self.memory.steps.tokens), self._batch)
        self.compiled: Compiled | None = None
        self.works_ahead = self.args.device.type == "cuda" and not ranks.sharded
        self._ranks = ranks
        self._speed = speed
        self._training = training
        self._student: Any = student  # None once it is released
        config: Any = student.config
        self._patch = patch_side(config) or _PATCH
        self._losses: list[float] = []
        # Pairs about one picture in a row, so that they may share it.
        order = {example.image: place for place, example in reversed([*enumerate(training.held_out)])}
        self._looked_at = sorted(training.held_out, key=lambda example: order[example.image])
        # Batch norm statistics are from pretraining: a few thousand pairs, half of them gaps, would shift them
        # for all images. In training they are fixed as in inference; only scale and shift are trained.
        self._batch_norms = [
            module for module in student.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:  # noqa: ANN401
        """The order of the training pairs."""
        if self._training.settings.questions_together:
            return PictureSampler(self._training.train, self._training.seed)
        usual: torch.utils.data.Sampler[int] | None = super()._get_train_sampler(train_dataset)
        return usual

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimiser, with a parameter group for each part that has its own learning rate."""
        rates = lr_multipliers_by_module(self._training.settings.decided.lr_multipliers)
        if rates and self.optimizer is None:
            decayed = self.get_decay_parameter_names(self._student)
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self._student)
            rate = {"learning_rate": self.args.learning_rate, "weight_decay": self.args.weight_decay}
            groups = parameter_groups(self._student, rates, decayed, **rate)
            self.optimizer_cls_and_kwargs = kind, {**options, "params": groups}  # in place of the Trainer's own groups
        there = self.optimizer is not None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if not there:
            keep_whole(optimizer)
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The objective on a micro-batch, as its share of the mean over all labelled tokens of the step.

        Args:
            model: The student.
            inputs: The micro-batch.
            return_outputs: Unused.
            num_items_in_batch: Its share of the step's labelled tokens, under the Trainer's name for what is handed on;
                None: all.
        """
        self._fix_statistics()
        rows, tokens = len(inputs["lengths" if "lengths" in inputs else "input_ids"]), inputs["input_ids"].numel()
        self._speed.count(rows * self._ranks.size, tokens * self._ranks.size)  # the others do about as much
        done = self.state.global_step / max(1, self.state.max_steps)
        share = 1.0 if num_items_in_batch is None else float(num_items_in_batch)
        return self._training.objective(model, inputs, done) * share

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward pass; if loss or gradient is not finite, the step is skipped and counted."""
        self._steps_begun -= 1
        rows = self._ahead.rows(inputs["begun"])
        labelled = self._ranks.total(sum(row.labels for row in rows))
        with self.memory.learnt():
            loss = self._loss_of_step(model, rows, labelled)
        follows = self.state.global_step + 1 < self.state.max_steps
        if self.works_ahead and follows and self._begun and self._begun is not inputs["begun"]:
            self._ahead.make(self._begun)
        self.memory.steps.agree(self._ranks.smallest)
        loss = self._ranks.added(loss)
        self._ranks.add_gradients(model)
        self.memory.remember(self.state)
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if not (torch.isfinite(loss) and torch.isfinite(whole(nn.utils.get_total_norm(gradients)))):
            model.zero_grad()  # without gradients the optimiser changes nothing, not even by weight decay
            self.log({"skipped": 1.0})
            if skipped_steps(self.state) >= self._training.settings.skipped_steps:
                self.control.should_training_stop = True
        self._tell(float(loss))
        return loss

    def _loss_of_step(self, model: nn.Module, rows: Sequence[Row], labelled: int) -> torch.Tensor:
        """The step's loss after its backward passes; where compiled layers fail, with those as they are written."""
        cut, work = partial(self._cut_alike, rows), partial(self._in_micro_batches, model, labelled)
        if self.compiled:
            try:
                return self.memory.steps(cut, work)
            except (WorkFailed, RanOut):
                raise
            except Exception as problem:  # noqa: BLE001 - what is not the compiler's fault comes again at once
                self.compiled.give_up(problem)
                self.compiled = None
        return self.memory.steps(cut, work)

    def _tell(self, loss: float) -> None:
        """Tells the training loss, as a mean over a few steps, the learning rate and how fast it goes."""
        self._losses.append(loss)
        step = self.state.global_step + 1
        if step % max(1, math.ceil(self.state.max_steps / _TOLD)) == 0:
            values = {TRAINING_LOSS: sum(self._losses) / len(self._losses), **self._rate(), **self._speed.figures()}
            for what, value in values.items():
                tell_measured(self._training.progress, what, step, value)
            report(self, values)
            self._losses.clear()

    def _rate(self) -> dict[str, float]:
        """The learning rate, the largest if parts have their own; nothing where a step is taken without training."""
        groups = self.optimizer.param_groups if self.optimizer else []
        return {LEARNING_RATE: max(float(group["lr"]) for group in groups)} if groups else {}

    def _begin_step(self, examples: Sequence[Example]) -> dict[str, Begun]:
        """Begins a step's pictures; accelerate asks for this while the step before has yet to be taken."""
        step = self.state.global_step + self._steps_begun
        self._steps_begun += 1
        self._begun = self.batches.begin(self._ranks.share(examples), visit=step)
        return {"begun": self._begun}

    def _batch(self, part: MicroBatch) -> Batch:
        """A micro-batch on the student's device."""
        return self.batches.batch(part.bundles, self.sharing)

    def _cut(self, rows: Sequence[Row], tokens: int) -> list[MicroBatch]:
        """The micro-batches of rows."""
        settings = self._training.settings
        limits = Limits(tokens, settings.micro_batch_size or settings.batch_size)
        return cut(rows, limits, patch=self._patch, prefix=self.sharing.prefix if self.sharing else None)

    def _cut_alike(self, rows: Sequence[Row], tokens: int) -> list[MicroBatch]:
        """The same, with as many as every process that has a part of the student: all of them make the same passes."""
        parts = self._cut(rows, tokens)
        if not self._ranks.sharded:
            return parts
        missing = self._ranks.largest(len(parts)) - len(parts)
        last = parts[-1:] or self._cut(self.batches.rows(self.batches.begin(self._training.train[:1])), tokens)
        return [*parts, *(last[0]._replace(counts=False) for _ in range(missing))]

    def _in_micro_batches(self, model: nn.Module, labelled: int, parts: Iterator[MicroBatch]) -> torch.Tensor:
        """Gradients of this process's part of the mean over all labelled tokens, whatever the micro-batches."""
        model.zero_grad()  # gradients of micro-batches before memory ran out
        losses = [
            super(LevelTrainer, self).training_step(model, self._ahead.batch(part), _share_of(part, labelled))
            for part in parts
        ]
        return torch.stack(losses).sum() if losses else torch.zeros((), device=self.args.device)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ANN401 - of a search, never used here
        """Saves a checkpoint; the first process does, for all."""
        if self._ranks.first:
            super()._save_checkpoint(model, trial)
        elif self._ranks.sharded and self.optimizer:
            whole_weights(self._student)  # its parts of what the first one saves, in the same order
            self.optimizer.state_dict()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Saves the weights, whole."""
        super()._save(output_dir, whole_weights(self._student) if self._ranks.sharded else state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Loads a checkpoint's weights. Of an adapter the Trainer does; of a whole model it looks for the names of the
        model's modules, and loads nothing, without a word, of the families whose files have other names.
        """
        if self._training.settings.decided.method != "full":
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        location, loading, dtype = self._training.student, self._training.loading, self._student.dtype
        saved = open_student(location, loading, weights=Path(resume_from_checkpoint), dtype=dtype, device="cpu")
        if self._ranks.sharded:
            give_weights(self._student, saved.state_dict())
        else:
            self._student.load_state_dict(saved.state_dict())

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted, since the rows are not loaded yet when this is called."""
        return 0

    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        """Measures the held-out loss and calls the callbacks."""
        metrics = {"eval_loss": self._ranks.from_first(self.held_out_loss)}
        self.memory.remember(self.state)
        tell_measured(self._training.progress, HELD_OUT_LOSS, self.state.global_step, metrics["eval_loss"])
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def held_out_loss(self, model: nn.Module | None = None) -> float:
        """The objective's mean over the labelled tokens of all held-out examples, for the student or another model."""
        student = model or self._student
        student.eval()
        total, tokens = 0.0, 0
        with self._training.objective.recording_attention(student):
            for rows in self.batches.ahead(self._looked_at, self._training.settings.batch_size):
                total += self.memory.looks(partial(self._cut, rows), partial(self._summed_loss, student))
                tokens += sum(row.labels for row in rows)
        divide_again(student)
        return total / tokens

    def trial(self) -> float:
        """The loss of one example, with a backward pass that leaves nothing behind."""
        self._student.eval()
        return self._tried(self.batches(self._training.held_out[:1]))

    def trial_step(self) -> float:
        """The same of a small micro-batch in training mode; random numbers go on as if it had not been."""
        rows = self.batches.rows(self.batches.begin(self._training.train[:_TRIED]))
        with torch.random.fork_rng():
            self._student.train()
            self._fix_statistics()
            return self.memory.steps(partial(self._cut, rows), lambda parts: self._tried(self._batch(next(parts))))

    def _tried(self, batch: Batch) -> float:
        student, inputs = self._student, self._prepare_inputs(batch)
        with (
            self._training.objective.recording_attention(student),
            torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16),
        ):
            loss = self._training.objective(student, inputs)
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            student.zero_grad()
        return float(loss.detach())

    def _fix_statistics(self) -> None:
        for module in self._batch_norms:
            module.eval()

    def release(self) -> None:
        """Releases the student and its optimiser, whose memory the next model needs."""
        self.accelerator.free_memory()
        holders: list[Any] = [self, self.callback_handler]
        for holder in holders:
            holder.model = holder.model_wrapped = holder.optimizer = holder.lr_scheduler = None
        self._student = None
        self._ahead.forget()
        self._begun = self.compiled = None
        self._batch_norms.clear()
        clear_device_cache(garbage_collection=True)

    def recording_attention(self) -> AbstractContextManager[None]:
        """Records the student's attention for the objective."""
        return self._training.objective.recording_attention(self._student)

    def _summed_loss(self, model: nn.Module, parts: Iterator[MicroBatch]) -> float:
        """The objective's sum over the labelled tokens of micro-batches."""
        total, device = 0.0, self.args.device
        for part in parts:
            batch = self._prepare_inputs(self._batch(part))
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.args.bf16):
                total += float(self._training.objective(model, batch)) * part.labels
        return total


def _share_of(part: MicroBatch, labelled: int) -> torch.Tensor:
    """The share of a step's labelled tokens, counted here: to count them on a GPU would be to wait for it."""
    return torch.tensor(part.labels / labelled if part.counts else 0.0, dtype=torch.float64)


class LevelCallback(TrainerCallback):
    """Reports progress, evaluates at the end too, stops when patience is exhausted, and marks complete checkpoints."""

    def __init__(self, progress: Progress, patience: int, work: Path, speed: Speed, ranks: Ranks = ALONE) -> None:
        self._progress = progress
        self._speed = speed
        self._patience = patience
        self._ranks = ranks
        self._work = work
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._written: Future[None] | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """After each optimiser step."""
        speed = self._speed.step()
        if isinstance(self._progress, Details):
            self._progress.detail("level", speed)
        self._progress("level", state.global_step, state.max_steps)
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """After each measurement of the held-out loss."""
        if out_of_patience(state, self._patience):
            control.should_training_stop = control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """After all files of a checkpoint: it is brought to the disk and marked while training goes on."""
        self._wait()
        if self._ranks.first:
            self._written = self._thread.submit(complete, checkpoint(self._work, state.global_step))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """After the last step."""
        self._wait()

    def _wait(self) -> None:
        """Until the last checkpoint counts.

        Raises:
            WorkFailed: The disk refused it.
        """
        if self._written:
            self._written.result()


def tell_measured(progress: Progress, what: str, step: int, value: float) -> None:
    """Hands a measured value to whoever watches, if they take such."""
    if isinstance(progress, Measures):
        progress.measured(what, step, value)


def out_of_patience(state: TrainerState, patience: int) -> bool:
    """Whether the held-out loss has had no new best for so many evaluations."""
    losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
    losses = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def skipped_steps(state: TrainerState) -> int:
    """How many steps were skipped, since loss or gradient was not finite."""
    return sum("skipped" in entry for entry in state.log_history)


def _arguments(training: Training, work: Path, *, reports: bool = True) -> TrainingArguments:
    settings = training.settings
    steps = settings.steps(len(training.train))
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.decided.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(steps * settings.warmup_ratio),
        eval_strategy="steps",
        eval_steps=math.ceil(steps / EVALUATIONS),
        save_strategy="steps",
        save_steps=math.ceil(steps / EVALUATIONS),
        save_total_limit=3,  # the best and two more: a kill while one is written and another deleted leaves the third
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_strategy="no",
        report_to=list(settings.report_to) if reports else [],
        project="parityalign",
        run_name=work.parent.resolve().name,
        disable_tqdm=True,
        use_cpu=not on_gpu,
        bf16=bf16_is_fast(on_gpu),
        dataloader_pin_memory=False,  # the loader's items are not tensors yet
        remove_unused_columns=False,
        seed=training.seed,
        data_seed=training.seed,
    )
    if settings.optimiser != "adamw":
        arguments.optim = OptimizerNames(settings.optimiser)
    if arguments.n_gpu > 1:  # else each GPU would get a whole batch, through DataParallel
        arguments._n_gpu = 1
    return arguments
