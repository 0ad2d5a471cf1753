"""The stages `discrepancy` and `level` of a run: teacher-forced scores, then training on them.

Like `pipeline.py` this module joins packages.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from parityalign import training
from parityalign.config import LevelSettings, split_model
from parityalign.core import DISCREPANCY_FOLDER, Artifact, Leveller, LevelResult, Pair, UserError, Verdict
from parityalign.pipeline.objective import note_left_out, objective_of
from parityalign.pipeline.run import Run
from parityalign.stages import ModelLoaders, level_on_gaps, score_teacher_forced


def measure_discrepancy(run: Run, pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> list[str]:
    """The stage `discrepancy`: both models scored teacher-forced on every pair that was not dropped.

    Returns:
        The name of the artifact, if the objective or the weights of pairs need it.
    """
    if not run.config.wants_discrepancy and run.only != "discrepancy":
        return []
    of = ["pairs", "verdicts", "teacher model", "student model", "answer prompt", "rationale prompt"]
    plan, name = ["discrepancy.max_new_tokens"], "discrepancy.rationales"
    # Rationales that are there stay, even if no term asks for them any more.
    rationales = run.config.wants_rationales or run.holds(DISCREPANCY_FOLDER, of=of, settings=plan, chosen={name: True})
    with run.stage("discrepancy", DISCREPANCY_FOLDER, of=of, settings=plan, chosen={name: rationales}) as made:
        models = ModelLoaders(run.load_student, run.load_teacher)
        settings = run.config.discrepancy.model_copy(update={"rationales": rationales})
        score_teacher_forced(made, pairs, verdicts, run.tasks, models, settings=settings, progress=run.progress)
    return [DISCREPANCY_FOLDER] if run.config.discrepancy.used_in_training(run.config.level) else []


def level_student(
    run: Run,
    artifact: Artifact,
    pairs: Sequence[Pair],
    verdicts: Sequence[Verdict],
    *,
    settings: LevelSettings,
    seed: int,
) -> None:
    """The stage `level`.

    Args:
        run: The run.
        artifact: Where the levelled student goes.
        pairs: All pairs.
        verdicts: The verdict on each, in the same order.
        settings: What the student is trained on, and how.
        seed: Decides what is drawn, and the order of the pairs.
    """
    if not artifact.finished:
        note_left_out(run, artifact, settings)
        level_on_gaps(artifact, pairs, verdicts, leveller(run, settings, seed), settings=settings, seed=seed)


def leveller(run: Run, settings: LevelSettings, seed: int, step: str = "level") -> Leveller:
    """What trains a student; only when it is called does training's torch come in.

    Args:
        run: The run.
        settings: How it is trained.
        seed: Decides the order of the pairs.
        step: What its progress is called.
    """

    def level(pairs: Sequence[Pair], held_out: Sequence[Pair], out: Path) -> LevelResult:
        kind, location = split_model(run.config.student)
        if kind != "hf":
            raise UserError(f"the student {run.config.student} cannot be trained: only hf and embedded models can")
        make: Callable[..., Leveller] = training.make_leveller
        return make(
            location,
            {task.name: task.answer_prompt for task in run.tasks.values()},
            settings=settings,
            objective=objective_of(run, settings, [*pairs, *held_out]),
            seed=seed,
            progress=lambda _, done, total: run.progress(step, done, total),
            loading=run.config.loading.student,
        )(pairs, held_out, out)

    return level
