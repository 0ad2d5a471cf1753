"""Controls of a run: the same student trained with as many optimiser steps on something else than gaps and replay.

    without replay   only the gaps, as in the paper
    all pairs        annotate without identify
    random pairs     as many as the run trained on, whatever their verdict
    format only      the teacher's questions with the student's own answers: short answers, no new content

None needs to know what is true, so every run can have them; what the run is ahead by is what picking, and the teacher's
answers, are worth.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from parityalign.config import LevelSettings, results_of
from parityalign.core import (
    CONTROLS,
    DISCREPANCY_FOLDER,
    Answer,
    Artifact,
    Control,
    Controls,
    Estimate,
    GapPrecision,
    ImageRef,
    Judged,
    Scores,
    Stream,
    UserError,
    WorkFailed,
    content_id,
    did_you_mean,
    sealed,
    write_whole,
)
from parityalign.pipeline.level import leveller
from parityalign.pipeline.run import Run
from parityalign.report import write_report
from parityalign.stages import (
    AFTER_FILE,
    BEFORE_FILE,
    STUDENT_ANSWERS,
    TEACHER_FILE,
    Choice,
    accepted_images,
    answer_tests,
    choose_pairs,
    hold_out,
    score_answers,
    was_levelled,
)

ENDLESS = 1_000_000
"""Patience of a control: it takes all its steps and keeps the best checkpoint."""


class Arm(NamedTuple):
    """What one control trains on."""

    name: str
    description: str
    choice: Choice
    of_the_teacher: bool = True
    """Whether the teacher's signals apply to these pairs; else only answers are trained on."""


class Aligned(NamedTuple):
    """What controls need of a run: what to choose from, and how the run chooses."""

    images: list[ImageRef]
    judged: list[Judged]
    student_said: Mapping[str, str]
    """The student's answer before, by pair id."""
    settings: LevelSettings
    """How it trains, with the steps that each control takes."""
    seed: int

    def chosen(self, **changes: object) -> Choice:
        """What is trained on with these settings in place of the run's."""
        return choose_pairs(self.judged, self.settings.model_copy(update=changes), self.seed)

    @property
    def held_out(self) -> list[Judged]:
        """The pairs that judge, whatever is trained on."""
        return hold_out(self.judged, self.settings, self.seed).pairs


def _without_replay(aligned: Aligned) -> Arm:
    return Arm("without replay", "the gaps alone, the paper's way", aligned.chosen(replay=0.0))


def _all_pairs(aligned: Aligned) -> Arm:
    return Arm("all pairs", "annotate without identify", aligned.chosen(select="all"))


def _random_pairs(aligned: Aligned) -> Arm:
    return Arm("random pairs", "as many, whatever their verdict", aligned.chosen(select="random"))


def _format_only(aligned: Aligned) -> Arm:
    own = [
        pair.model_copy(update={"answer": aligned.student_said[pair.pair_id]})
        for pair in aligned.chosen(select="random").training
        if aligned.student_said[pair.pair_id]
    ]
    return Arm("format only", "the student's own answers: no new content", Choice(own, aligned.held_out, 0), False)


_ARMS: Mapping[str, Callable[[Aligned], Arm]] = {
    "gaps": _without_replay,
    "all": _all_pairs,
    "random": _random_pairs,
    "format": _format_only,
}
KINDS_OF_CONTROLS = tuple(_ARMS)
"""The names by which they are asked for."""


def control_names(said: str) -> tuple[str, ...]:
    """The names of controls in a list with commas.

    Raises:
        UserError: No control has one of them; the message names those that there are.
    """
    names = tuple(dict.fromkeys(name.strip() for name in said.split(",") if name.strip()))
    if unknown := [name for name in names or (said,) if name not in _ARMS]:
        raise UserError(
            f"no control {unknown[0]!r}. {did_you_mean(unknown[0], KINDS_OF_CONTROLS)} Several are divided by commas."
        )
    return names


def run_controls(run: Run, names: Sequence[str] = KINDS_OF_CONTROLS) -> None:
    """Trains and scores these controls of a finished run, writes `controls.json` and the report once more.

    Raises:
        WorkFailed: The run has no levelled student to compare with.
    """
    aligned = aligned_of(run)
    write_controls(run, aligned, [control_arm(aligned, name) for name in names])


def control_arm(aligned: Aligned, name: str) -> Arm:
    """What the control of a name trains on."""
    return _ARMS[name](aligned)


def write_controls(run: Run, aligned: Aligned, arms: Iterable[Arm], precision: GapPrecision | None = None) -> None:
    """Trains and scores controls; those that were finished before are kept."""
    rows = [_control(run, aligned, arm) for arm in arms]
    controls = Controls(controls=tuple(rows), gap_precision=precision)
    said = json.dumps(sealed(json.loads(controls.model_dump_json())), indent=1, ensure_ascii=False)
    write_whole(run.folder.path / CONTROLS, f"{said}\n")
    write_report(run.folder.path)


def aligned_of(run: Run) -> Aligned:
    """What controls need of a finished run.

    Raises:
        WorkFailed: It has no levelled student to compare with.
    """
    if not was_levelled(run.artifact("student")):
        raise WorkFailed(
            f"the run {run.folder.path} has no levelled student to compare with: it trained on nothing, or the trained "
            "one was no better on the held-out pairs"
        )
    steps = run.artifact("student").manifest["result"]["steps"]
    return identified_of(run, run.config.level.model_copy(update={"max_steps": steps}))


def identified_of(run: Run, settings: LevelSettings) -> Aligned:
    """What controls need of a run that has come as far as identify, with settings of one's own."""
    verdicts = run.artifact("verdicts")
    return Aligned(
        images=accepted_images(run.artifact("images")),
        judged=run.judged,
        student_said={answer.item_id: answer.text for answer in verdicts.stream(STUDENT_ANSWERS, Answer)},
        settings=settings,
        seed=run.config.seed,
    )


def _control(run: Run, aligned: Aligned, arm: Arm) -> Control:
    """Trains, asks and scores one control; what was finished before is kept."""
    folder = f"controls/{arm.name.replace(' ', '-')}"
    student = trained_on(run, arm, aligned.settings, folder)
    asked = {"student": student.digest, "answers before": run.artifact("answers").digest}
    answers = run.folder.artifact(f"{folder}/answers", inputs=asked, settings={})
    if not answers.finished:
        said = answer_tests(
            run.trained(student),
            run.tests,
            run.tasks,
            settings=run.config.evaluate,
            seed=run.config.seed,
            on_progress=lambda done, total: run.progress(f"evaluate {arm.name}", done, total),
        )
        answers.stream(AFTER_FILE, Answer).write(said)
        answers.finish({"answers": len(said)})
    return scored(run, answers, arm, student.manifest["result"]["steps"])


def trained_on(run: Run, arm: Arm, settings: LevelSettings, folder: str) -> Artifact:
    """The artifact of the run's student trained on an arm, without asking whether it is better.

    Args:
        run: Has come as far as identify.
        arm: What is trained on.
        settings: How. Training takes all its steps and keeps the best checkpoint.
        folder: Of the artifact's, in the run folder.
    """
    changes: dict[str, object] = {"patience": ENDLESS}
    if not arm.of_the_teacher:
        changes["objective"] = {"answer": 1.0}
    settings, choice = settings.model_copy(update=changes), arm.choice
    trained = content_id(*(f"{pair.pair_id} {pair.answer}" for pair in choice.pairs))
    inputs = {"student model": run.models.student_fingerprint, "pairs": trained}
    plan = {
        **results_of(settings),
        **settings.stands_for,
        **run.config.discrepancy.in_levelling(settings),
        "seed": run.config.seed,
    }
    if run.config.discrepancy.used_in_training(settings):
        inputs[DISCREPANCY_FOLDER] = run.artifact(DISCREPANCY_FOLDER).digest
    student = run.folder.artifact(f"{folder}/student", inputs=inputs, settings=plan)
    if not student.finished:
        level = leveller(run, settings, run.config.seed, f"level {arm.name}")
        result = level(choice.training, [pair for pair, _ in choice.held_out], student.path)
        student.finish({"pairs": len(choice.training), "steps": result.steps}, result=dict(vars(result)))
    return student


def scored(run: Run, after: Artifact, arm: Arm, steps: int) -> Control:
    """What a control came to, beside the run's student before and after.

    Args:
        run: The finished run.
        after: The answers of the control's student.
        arm: What it was trained on.
        steps: Optimiser steps.
    """
    own, config = run.artifact("answers"), run.config
    before, run_after, teacher = (own.stream(name, Answer) for name in (BEFORE_FILE, AFTER_FILE, TEACHER_FILE))

    def score(first: Stream[Answer], second: Stream[Answer]) -> Scores:
        streams = [first, second, teacher]
        return score_answers(streams, run.tests, run.tasks, settings=config.evaluate, seed=config.seed)

    scores = score(before, after.stream(AFTER_FILE, Answer))
    by_task = {task: Estimate(score=found.after.score, ci=found.after.ci) for task, found in scores.tasks.items()}
    gain, ahead = scores.mean_gain, score(after.stream(AFTER_FILE, Answer), run_after).mean_gain
    return Control(
        name=arm.name,
        description=arm.description,
        pairs=len(arm.choice.training),
        steps=steps,
        tasks=by_task,
        mean=Estimate(score=sum(found.score for found in by_task.values()) / len(by_task)) if by_task else None,
        mean_gain=Estimate(score=gain.score, ci=gain.ci) if gain else None,
        run_ahead=Estimate(score=ahead.score, ci=ahead.ci) if ahead else None,
        forgotten=scores.forgotten.questions.total,
    )
