"""Levels the student: trains it, saves the best checkpoint or an interpolation to it, and resumes reproducibly."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import TrainerState, set_seed

from parityalign.config import LevelSettings, LoadingSettings, decide_level, results_of
from parityalign.core import (
    HELD_OUT_LOSS,
    Leveller,
    LevelResult,
    Pair,
    Progress,
    Says,
    content_id,
    model_digest,
    write_whole,
)
from parityalign.models import (
    AS_IT_IS,
    bf16_is_fast,
    gpus_of,
    open_processor,
    processes_for,
    quieten,
    shares_of_machine,
    stop_tokens,
    usual_workers,
)
from parityalign.training.checkpoints import checkpoint, newest_sound, state_of
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.compiling import compiled_layers, worth_compiling
from parityalign.training.facts import student_facts
from parityalign.training.interpolation import ALPHAS, Interpolation, lowest
from parityalign.training.kernels import fused_kernels
from parityalign.training.oom import RanOut, fewest_tokens
from parityalign.training.processes import in_processes
from parityalign.training.ranks import ALONE, Ranks
from parityalign.training.sharded import shard
from parityalign.training.student import (
    ADAPTER,
    keep_adapter,
    merge_adapter,
    open_checkpoint,
    open_student,
    open_to_merge,
    open_trainable,
    save_student,
    without_casts,
)
from parityalign.training.trainer import (
    LevelTrainer,
    Objective,
    Training,
    out_of_patience,
    skipped_steps,
    tell_measured,
)
from parityalign.training.verify_saved import answer_logprobs, refuse_difference

PLAN = "plan"
"""File in the folder of checkpoints that identifies their training."""


class Best(NamedTuple):
    """The best student of a training."""

    step: int
    """Optimiser step; 0: no checkpoint is better than the initial student."""
    model: nn.Module
    """With its adapter not merged."""
    before: float
    """The held-out loss of the initial student."""
    after: float
    alpha: float = 1.0
    """0 is the initial student, 1 the checkpoint."""


def make_leveller(
    student: str,
    answer_prompts: Mapping[str, str],
    *,
    settings: LevelSettings,
    objective: Objective,
    seed: int,
    progress: Progress,
    loading: LoadingSettings = AS_IT_IS,
) -> Leveller:
    """A leveller for the student at `student`, a Hugging Face folder or hub id.

    During training its checkpoints are next to the result. Called again with the same pairs after a kill, it resumes
    from the last checkpoint and ends with the same weights.

    Args:
        student: Its folder or hub id.
        answer_prompts: Task name -> format string with `{question}`, the same as in identify and evaluate.
        settings: How to train; what is `auto` is decided by the student's size.
        objective: What to minimise.
        seed: Of the order of the pairs and the adapter's initial weights.
        progress: Called with the optimiser steps done and in total.
        loading: How the student is loaded for inference: its revision and limit of pixels apply to training too.
    """
    if settings.undecided:
        settings = decide_level(settings, student_facts(student, loading))

    examples = partial(examples_of, answer_prompts=answer_prompts, objective=objective)

    def level(pairs: Sequence[Pair], held_out: Sequence[Pair], out: Path) -> LevelResult:
        # Pairs of a single image cannot be split; then the training pairs are used for early stopping.
        data = examples(pairs), examples(held_out or pairs)
        return _level(Training(student, loading, settings, objective, seed, progress, *data), out)

    return level


def examples_of(pairs: Sequence[Pair], answer_prompts: Mapping[str, str], objective: Objective) -> list[Example]:
    """Pairs as training examples."""
    return [
        Example(
            pair.image,
            answer_prompts[pair.task].format(question=pair.question),
            pair.answer,
            pair.pair_id,
            *objective.rationale(pair.pair_id),
        )
        for pair in pairs
    ]


def _level(training: Training, out: Path) -> LevelResult:
    work = _work_folder(out, training)
    shares = _shares(training)
    if len(shares) == 1:
        result = _levelled(training, work, out, ALONE, training.progress)
    else:
        divided = ", which divide the student among them" if training.settings.sharded else ""
        _teller(training.progress)(f"in {len(shares)} processes{divided}")
        result = _together(training, work, out, shares)
    if result is None:
        raise ValueError("the first rank has a result")
    return result


def _together(training: Training, work: Path, out: Path, shares: Sequence[Mapping[str, str]]) -> LevelResult:
    """Trains in several processes; those that divide the student begin anew where memory ran out in one."""
    to_send = replace(training, progress=_nobody)
    while True:
        try:
            return in_processes(partial(_levelled, to_send, work, out), shares, training.progress)
        except RanOut as problem:
            _teller(training.progress)(
                "memory ran out in one of the processes; all go on from the last checkpoint with micro-batches of "
                f"{problem.tokens:,} tokens"
            )
            to_send = replace(to_send, fits=problem.tokens)


def _shares(training: Training) -> list[dict[str, str]]:
    """The variables of each process that trains; more than a step has pairs would have nothing to do."""
    settings = training.settings
    wanted = 1 if training.loading.device_map else settings.processes
    return [{}] if wanted == 1 else shares_of_machine(wanted)[: settings.batch_size]


def _nobody(_step: str, _done: int, _total: int) -> None:
    """The progress of a training that is sent to other processes, which have their own."""


def _levelled(training: Training, work: Path, out: Path, ranks: Ranks, progress: Progress) -> LevelResult | None:
    """Trains as one of several processes, or alone; the first one saves the student and has the result."""
    quieten()
    training = replace(training, progress=progress)
    ranks.sharded = training.settings.sharded and ranks.size > 1
    trainer = trainer_of(training, work, ranks)
    with closing(trainer.batches):
        before, state = _trained(trainer, training, work, ranks)
        ranks.leave()
        trainer.memory.looks.begins_anew = True  # the others are not needed any more
        return _saved(trainer, training, work, out, before, state) if ranks.first else None


def _trained(trainer: LevelTrainer, training: Training, work: Path, ranks: Ranks) -> tuple[float, TrainerState]:
    """The held-out loss before training, which the first one measures, and the state after."""
    last = _last(trainer, work, training, ranks)
    done = state_of(last) if last else TrainerState()
    # All of them, also after a kill: other kernels would learn to other bits.
    steps = 0 if _is_over(trainer, training, done) else trainer.args.max_steps
    with fast_student(trainer, training.settings, _teller(training.progress), steps):
        before = ranks.from_first(trainer.held_out_loss)
        tell_measured(training.progress, HELD_OUT_LOSS, 0, before)
        state = _train(trainer, last) if steps else done
    trainer.release()
    return before, state


def _saved(
    trainer: LevelTrainer, training: Training, work: Path, out: Path, before: float, state: TrainerState
) -> LevelResult:
    """Saves the best student; after that there are no checkpoints."""
    best = _best(training, trainer, work, state, before)
    _save(training, best, trainer.batches, out, work)
    (work / PLAN).unlink()  # first, so that a half-deleted folder is never resumed
    shutil.rmtree(work)
    told = skipped_steps(state), fewest_tokens(state)
    return LevelResult(state.global_step, best.step, best.before, best.after, *told, interpolation=best.alpha)


def _best(training: Training, trainer: LevelTrainer, work: Path, state: TrainerState, before: float) -> Best:
    location, loading, method = training.student, training.loading, training.settings.decided.method
    opened = partial(open_checkpoint, location, adapter=method != "full", loading=loading, dtype=_precision(training))
    step, after, interpolates = state.best_global_step, state.best_metric, training.settings.interpolate
    if step and after is not None and (after < before or interpolates):
        model, alpha = opened(checkpoint(work, step)), 1.0
        if interpolates and _can_interpolate(training, model):
            alpha, before, after = _interpolated(training, trainer, model)
        elif method == "qlora":  # trained in 4 bits, merged in full precision: only the merged model's loss counts
            after = trainer.held_out_loss(model)
            before = _without_adapter(trainer, model)
        if after < before:
            return Best(step, model, before, after, alpha)
        del model
    return Best(0, opened(None), before, before)


def _interpolated(training: Training, trainer: LevelTrainer, model: nn.Module) -> tuple[float, float, float]:
    """Sets the weights to the interpolation with the lowest held-out loss.

    Returns:
        Its alpha, and the losses of the student before and there, both without fused kernels and in one process.
    """
    _teller(training.progress)(
        f"measuring the held-out loss at {len(ALPHAS)} points from the student to the trained one"
    )
    before = None
    if training.settings.decided.method == "full":
        location, loading, precision = training.student, training.loading, _precision(training)
        before = open_student(location, loading, dtype=precision, device="cpu")
    weights = Interpolation(model, before)

    def loss_at(alpha: float) -> float:
        weights.set(alpha)
        return trainer.held_out_loss(model)

    alpha, losses = lowest(loss_at)
    weights.set(alpha)
    return alpha, losses[0.0], losses[alpha]


def _can_interpolate(training: Training, trained: nn.Module) -> bool:
    """Whether all weights of a trained student are in memory; adapters need not be."""
    possible = training.settings.decided.method != "full" or not any(weight.is_meta for weight in trained.parameters())
    if not possible:
        _teller(training.progress)(
            "some weights are on the disk: none between the student's and the trained ones are tried"
        )
    return possible


def _precision(training: Training) -> torch.dtype:
    """The precision in which the trained student is looked at: frozen weights below an adapter were no finer."""
    return torch.bfloat16 if training.settings.decided.method != "full" and _halves() else torch.float32


def _halves() -> bool:
    """Whether frozen weights below an adapter are in bfloat16."""
    return torch.cuda.is_available() and bf16_is_fast(on_gpu=True)


def _without_adapter(trainer: LevelTrainer, model: Any) -> float:  # noqa: ANN401 - a class of peft
    with model.disable_adapter():
        return trainer.held_out_loss(model)


def _save(training: Training, best: Best, batches: AnswerCollator, out: Path, work: Path) -> None:
    """Saves the student, loads it again and compares: merging and saving can silently change a model."""
    location, loading, precision = training.student, training.loading, _precision(training)
    said, model = answer_logprobs(best.model, batches, training.held_out), best.model
    if training.settings.decided.method != "full":
        model.to("meta")  # its memory is needed for the next
        model = open_to_merge(location, checkpoint(work, best.step) if best.step else None, loading=loading)
        Interpolation(model, None).set(best.alpha)
        if training.settings.keep_adapter and best.step:  # before the weights, with which the folder is complete
            commit = loading.commit
            keep_adapter(checkpoint(work, best.step), out / ADAPTER, best.alpha, student=location, revision=commit)
    whole = merge_adapter(model)
    stored = save_student(location, whole, out, loading=loading)
    whole.to("meta")
    read_back = open_student(str(out), loading.for_own_folder(), dtype=precision)
    saved = answer_logprobs(read_back, batches, training.held_out)
    refuse_difference(said, saved, stored if precision == torch.float32 else precision, str(out))


def trainer_of(training: Training, work: Path, ranks: Ranks = ALONE) -> LevelTrainer:
    """The trainer of a training, with the student opened; its `batches` are to be closed."""
    location, loading, settings = training.student, training.loading, training.settings
    processor = open_processor(location, loading)
    workers = usual_workers(ranks.size) if loading.workers is None else loading.workers
    processes = processes_for(location, loading.model_copy(update={"workers": workers}))
    with ExitStack() as on_failure:
        if processes:
            on_failure.callback(processes.close)
        set_seed(training.seed)  # before an adapter is initialised
        device = "cpu" if ranks.sharded else None
        student: Any = open_trainable(location, loading, settings, half=_halves(), device=device)
        if ranks.sharded:
            shard(student)
        stop = stop_tokens(processor.tokenizer, student.generation_config)
        views, join = "view" in training.objective.needs, training.objective.joiner(processor)
        batches = AnswerCollator(processor, stop, join=join, views=views, workers=workers, processes=processes)
        trainer = LevelTrainer(training, student, batches, work, ranks)
        on_failure.pop_all()
    return trainer


@contextmanager
def fast_student(
    trainer: LevelTrainer, settings: LevelSettings, say: Callable[[str], None], steps: int
) -> Iterator[None]:
    """Inside, a trainer's student runs as fast as what is installed allows.

    Args:
        trainer: With its student opened.
        settings: What is wanted.
        say: Told what is used, and why something is not.
        steps: Optimiser steps of the whole training; 0: it is over.
    """
    student: Any = trainer.model
    compiles = len(gpus_of(student)) == 1 and not settings.sharded and worth_compiling(settings, steps)
    with (
        without_casts(student, autocast=trainer.args.bf16),
        compiled_layers(student, trainer.trial_step, say, wanted=compiles) as trainer.compiled,
        fused_kernels(student, trainer.trial, say, wanted=settings.liger and not trainer.compiled),
    ):
        yield


def _last(trainer: LevelTrainer, work: Path, training: Training, ranks: Ranks) -> Path | None:
    """The last sound checkpoint, with which the trainer knows what memory takes."""
    last = newest_sound(work, _teller(training.progress)) if ranks.first else None
    ranks.wait()  # until what is damaged is gone
    if not ranks.first:
        last = newest_sound(work, lambda _: None)
    if last:
        trainer.memory.recall(state_of(last))
    return last


def _is_over(trainer: LevelTrainer, training: Training, state: TrainerState) -> bool:
    return state.global_step >= trainer.args.max_steps or out_of_patience(state, training.settings.patience)


def _train(trainer: LevelTrainer, last: Path | None) -> TrainerState:
    """Trains from the start or a checkpoint."""
    with trainer.recording_attention():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    return trainer.state


def _teller(watches: Progress) -> Callable[[str], None]:
    """Tells whoever watches a line, if they take any."""
    return watches.say if isinstance(watches, Says) else lambda _: None


def _work_folder(out: Path, training: Training) -> Path:
    """The folder of checkpoints next to `out`; emptied if they are of another training."""
    folder = Path(training.student).expanduser()
    student = model_digest(folder) if folder.is_dir() else training.student
    # What is done with the trained weights afterwards changes none of the checkpoints.
    afterwards = {"interpolate": False, "keep_adapter": False}
    settings = results_of(training.settings.model_copy(update=afterwards), "python")
    loading = training.loading.numbers(), training.loading.pinned
    data = training.seed, training.train, training.held_out
    plan = content_id(
        student, training.objective.signals_digest, repr((settings, training.settings.weights, loading, *data))
    )
    work = out.with_name(f".{out.name}.training")
    note = work / PLAN
    if not note.is_file() or note.read_bytes() != plan.encode():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_whole(note, plan)
    return work
