"""Levelling as a run needs it: what is minimised, on what evidence, with which student.

Like `pipeline.py` this module joins rooms.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from parityalign.config import LevelSettings
from parityalign.errors import UserError
from parityalign.evidence import TEACHER, observations, read_index
from parityalign.joinery import Run
from parityalign.plugins import find, is_served, split_model
from parityalign.profiles import PROFILES, Profile, pair_weights
from parityalign.prompting import Processor
from parityalign.records import Pair
from parityalign.seams import Leveller, LevelResult
from parityalign.stages.observe import explanations_of

EVIDENCE = "evidence"
"""The artefact of the stage `observe`."""


def leveller(run: Run, settings: LevelSettings, step: str = "level") -> Leveller:
    """What trains the student, with these settings; `step` is what its progress is called.

    Only when it is called does training's torch come in.
    """

    def level(pairs: Sequence[Pair], held_out: Sequence[Pair], out: Path) -> LevelResult:
        kind, location = split_model(run.config.student)
        if kind != "hf":
            raise UserError(f"the student {run.config.student} cannot be trained: only hf and embedded models can")
        make: Callable[..., Leveller] = find("training", "loop").make_leveller
        return make(
            location,
            {task.name: task.answer_prompt for task in run.tasks.values()},
            settings=settings,
            objective=_objective(run, settings, [*pairs, *held_out]),
            seed=run.config.seed,
            progress=lambda _, done, total: run.progress(step, done, total),
            loading=run.config.loading.student,
        )(pairs, held_out, out)

    return level


def _objective(run: Run, settings: LevelSettings, pairs: Sequence[Pair]) -> object:
    """What is minimised, with what is stored of the teacher if a term needs it."""
    made = find("objectives", "discrepancy")
    evidence = _evidence(run, pairs, made.Evidence) if settings.needs_evidence else None
    return made.Objective(settings.weights, divergence=settings.divergence, evidence=evidence)


def _evidence(run: Run, pairs: Sequence[Pair], kind: Callable[..., object]) -> object:
    stored = run.artefact(EVIDENCE)
    wanted = {pair.pair_id for pair in pairs}
    shown = observations(stored.path, read_index(stored.path, TEACHER))
    texts = explanations_of(stored)
    prompts = {name: task.explain_prompt for name, task in run.tasks.items()}
    return kind(
        observations={line.pair_id: seen for line, seen in shown if line.pair_id in wanted},
        weights=pair_weights(stored.stream(PROFILES, Profile), run.config.evidence),
        explanations={
            pair.pair_id: (prompts[pair.task].format(question=pair.question), texts[pair.pair_id])
            for pair in pairs
            if pair.pair_id in texts
        },
        digest=stored.digest,
        open_teacher=None if is_served(run.config.teacher) else lambda: _teacher_processor(run),
    )


def _teacher_processor(run: Run) -> Processor:
    from parityalign.opening import open_processor

    return open_processor(split_model(run.config.teacher)[1], run.config.loading.teacher)
