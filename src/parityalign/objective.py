"""What a run's levelling minimises: the objective of its settings, with what is stored of the teacher."""

from collections.abc import Collection, Sequence

from parityalign.errors import UserError
from parityalign.evidence import TEACHER, observations, read_index
from parityalign.joinery import Run
from parityalign.plugins import find, is_served, split_model
from parityalign.profiles import PROFILES, Profile, pair_weights
from parityalign.prompting import Processor
from parityalign.records import Pair
from parityalign.stages.observe import explanations_of
from parityalign.store import Artefact
from parityalign.tuning import LevelSettings

EVIDENCE = "evidence"
"""The artefact of what both models show of the pairs."""
_OBSERVED = frozenset({"distribution", "attention"})
"""What terms may need that lies in the shards of observations."""


def objective_of(run: Run, settings: LevelSettings, pairs: Sequence[Pair]) -> object:
    """What is minimised on these pairs, with what is stored of the teacher if a term or the weights of pairs need it.

    Raises:
        UserError: There is nothing for a term that was asked for by its name, or for the weights.
    """
    made = find("objectives", "discrepancy")
    lacking = _lacking(run, settings)
    if lacking and "discrepancy" not in settings.objective:
        term = repr(lacking[0])
        raise UserError(
            _nothing_for(run, f"level.objective has the term {term}", f"Leave {term} out of level.objective")
        )
    weights = {name: ends for name, ends in settings.weights.items() if name not in lacking}
    teaches = run.config.evidence.teaches(settings)
    evidence = made.Evidence(**_evidence(run, weights, pairs)) if teaches else None
    return made.Objective(weights, divergence=settings.divergence, evidence=evidence)


def note_left_out(run: Run, artefact: Artefact, settings: LevelSettings) -> None:
    """Has the artefact's manifest say which terms of `objective: discrepancy` the teacher shows nothing for."""
    lacking, facts = _lacking(run, settings), artefact.also
    if lacking:
        note = f"Without {' and '.join(lacking)}: the teacher shows nothing for it on any pair."
        artefact.also = lambda: {**facts(), "note": note}


def _lacking(run: Run, settings: LevelSettings) -> list[str]:
    """The terms that no pair has anything for: their share of the training would be for nothing."""
    if not settings.needs_evidence:
        return []
    stored = run.artefact(EVIDENCE).path
    index, explained = read_index(stored, TEACHER), bool(explanations_of(run.artefact(EVIDENCE)))
    there = {
        "distribution": any(line.shard for line in index),
        "attention": any(line.has_places for line in index),
        "explanation": explained,
    }
    missing = {need for need, found in there.items() if index and not found}
    return [name for name in settings.weights if _needs(name) & missing]


def _needs(term: str) -> frozenset[str]:
    needs: frozenset[str] = getattr(find("objectives", term), "NEEDS", frozenset())
    return needs


def _evidence(run: Run, terms: Collection[str], pairs: Sequence[Pair]) -> dict[str, object]:
    stored = run.artefact(EVIDENCE)
    wanted = {pair.pair_id for pair in pairs} if any(_needs(name) & _OBSERVED for name in terms) else set()
    index = [line for line in read_index(stored.path, TEACHER) if line.pair_id in wanted]
    texts = explanations_of(stored)
    prompts = {name: task.explain_prompt for name, task in run.tasks.items()}
    return {
        "observations": {line.pair_id: seen for line, seen in observations(stored.path, index)},
        "weights": _weights(run, stored),
        "explanations": {
            pair.pair_id: (prompts[pair.task].format(question=pair.question), texts[pair.pair_id])
            for pair in pairs
            if pair.pair_id in texts
        },
        "digest": stored.digest,
        "open_teacher": None if is_served(run.config.teacher) else lambda: _teacher_processor(run),
    }


def _weights(run: Run, stored: Artefact) -> dict[str, float]:
    profiles, settings = list(stored.stream(PROFILES, Profile)), run.config.evidence
    measure = {"teacher_confidence": "teacher_logprob", "confidence_gap": "confidence_gap"}.get(settings.weight_by)
    if measure and profiles and all(getattr(profile, measure) is None for profile in profiles):
        raise UserError(_nothing_for(run, f"evidence.weight_by is {settings.weight_by}", "Set it to none"))
    return pair_weights(profiles, settings)


def _nothing_for(run: Run, what: str, instead: str) -> str:
    return (
        f"{what}, but the teacher {run.config.teacher} showed nothing for it on any pair: see "
        f"{run.artefact(EVIDENCE).path / 'manifest.json'}.\n{instead}, or take another teacher."
    )


def _teacher_processor(run: Run) -> Processor:
    from parityalign.opening import open_processor

    return open_processor(split_model(run.config.teacher)[1], run.config.loading.teacher)
