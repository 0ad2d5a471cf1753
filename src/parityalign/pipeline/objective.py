"""The objective of a run's training: its settings joined with the teacher's stored signals."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

from parityalign import models, training
from parityalign.config import OBSERVED, PRESET, LevelSettings, backend_of, needs_of, split_model
from parityalign.core import (
    DISCREPANCY_FOLDER,
    PAIR_DISCREPANCIES,
    TEACHER,
    Artifact,
    Pair,
    PairDiscrepancy,
    UserError,
    read_index,
    read_observations,
    signals_digest,
)
from parityalign.models import Processor
from parityalign.stages import StageRun, pair_weights, rationales_of


def objective_of(run: StageRun, settings: LevelSettings, pairs: Sequence[Pair]) -> object:
    """The objective on these pairs, with the teacher's signals if a term or the pairs' weights need them.

    Raises:
        UserError: A term named in the objective, or the weights, have no teacher signals.
    """
    lacking = _lacking(run, settings)
    if lacking and PRESET not in settings.objective:
        term = repr(lacking[0])
        raise UserError(
            _nothing_for(run, f"level.objective has the term {term}", f"Leave {term} out of level.objective")
        )
    weights = {name: ends for name, ends in settings.weights.items() if name not in lacking}
    needed = run.config.discrepancy.used_in_training(settings)
    signals = _teacher_signals(run, weights, pairs) if needed else None
    return training.WeightedLoss(weights, settings=settings.own_settings, signals=signals)


def note_left_out(run: StageRun, artifact: Artifact, settings: LevelSettings) -> None:
    """Has the artifact's manifest say which terms of `objective: discrepancy` the teacher shows nothing for."""
    lacking = _lacking(run, settings)
    if lacking:
        artifact.note(f"Without {' and '.join(lacking)}: the teacher has no signals for it on any pair.")


def _lacking(run: StageRun, settings: LevelSettings) -> list[str]:
    """The terms for which no pair has a teacher signal, so that they would have no effect."""
    if not settings.needs_signals:
        return []
    stored = run.artifact(DISCREPANCY_FOLDER).path
    index, written = read_index(stored, TEACHER), bool(rationales_of(run.artifact(DISCREPANCY_FOLDER)))
    there = {
        "distribution": any(line.shard for line in index),
        "attention": any(line.has_places for line in index),
        "rationale": written,
    }
    missing = {need for need, found in there.items() if index and not found}
    return [name for name in settings.weights if needs_of(name) & missing]


def _teacher_signals(run: StageRun, terms: Collection[str], pairs: Sequence[Pair]) -> "training.Signals":
    stored = run.artifact(DISCREPANCY_FOLDER)
    trained = {pair.pair_id for pair in pairs}
    wanted = trained if any(needs_of(name) & OBSERVED for name in terms) else set()
    index = [line for line in read_index(stored.path, TEACHER) if line.pair_id in wanted]
    texts = rationales_of(stored)
    prompts = {name: task.rationale_prompt for name, task in run.tasks.items()}
    return training.Signals(
        observations={line.pair_id: seen for line, seen in read_observations(stored.path, index)},
        weights=_weights(run, stored, trained),
        rationales={
            pair.pair_id: (prompts[pair.task].format(question=pair.question), texts[pair.pair_id])
            for pair in pairs
            if pair.pair_id in texts
        },
        digest=signals_digest(stored, trained),
        open_teacher=_teacher_processor(run) if backend_of(run.config.teacher).hub else None,
    )


def _weights(run: StageRun, stored: Artifact, trained: Collection[str]) -> dict[str, float]:
    settings = run.config.discrepancy
    pairs = [each for each in stored.stream(PAIR_DISCREPANCIES, PairDiscrepancy) if each.pair_id in trained]
    measure = {"teacher_confidence": "teacher_logprob", "confidence_gap": "confidence_gap"}.get(settings.weight_by)
    if measure and pairs and all(getattr(pair, measure) is None for pair in pairs):
        raise UserError(_nothing_for(run, f"discrepancy.weight_by is {settings.weight_by}", "Set it to none"))
    return pair_weights(pairs, settings)


def _nothing_for(run: StageRun, what: str, instead: str) -> str:
    return (
        f"{what}, but the teacher {run.config.teacher} has no signals for it on any pair: see "
        f"{run.artifact(DISCREPANCY_FOLDER).path / 'manifest.json'}.\n{instead}, or use another teacher."
    )


def _teacher_processor(run: StageRun) -> Callable[[], Processor]:
    """Opens it, in another process too."""
    return partial(models.open_processor, split_model(run.config.teacher)[1], run.config.loading.teacher)
