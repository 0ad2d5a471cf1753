"""Levelling as a run needs it: on what evidence, with which objective.

Like `pipeline.py` this module joins rooms.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from parityalign import training
from parityalign.config import LevelSettings, backend_of, split_model
from parityalign.core import Artifact, Leveller, LevelResult, Pair, UserError, Verdict
from parityalign.pipeline.objective import EVIDENCE, note_left_out, objective_of
from parityalign.pipeline.run import Run
from parityalign.stages import Both, level_on_gaps, observe_models


def gather_evidence(run: Run, pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> list[str]:
    """The stage `observe`: what both models show of every pair that was not dropped, and how they differ.

    Returns:
        The name of the artifact, if the objective or the weights of pairs need it.
    """
    if not run.config.wants_evidence:
        return []
    of = ["pairs", "verdicts", "teacher model", "student model", "answer prompt", "explain prompt"]
    plan, name = ["evidence.max_new_tokens"], "evidence.explain"
    # Explanations that are there stay, even if no term asks for them any more.
    explain = run.config.wants_explanations or run.holds(EVIDENCE, of=of, settings=plan, chosen={name: True})
    with run.stage("observe", EVIDENCE, of=of, settings=plan, chosen={name: explain}) as made:
        models = Both(run.load_student, run.load_teacher)
        settings = run.config.evidence.model_copy(update={"explain": explain})
        observe_models(made, pairs, verdicts, run.tasks, models, settings=settings, progress=run.progress)
    return [EVIDENCE] if run.config.evidence.teaches(run.config.level) else []


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
        if not backend_of(run.config.student).trainable:
            raise UserError(
                f"the student {run.config.student} cannot be trained: the backend {kind!r} makes models that only "
                "answer.\nTake a Hugging Face folder or a name on the hub (hf:...), or an embedded student."
            )
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
