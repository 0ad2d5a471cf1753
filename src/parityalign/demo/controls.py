"""The demo's controls: the same student trained with as many optimiser steps on other data.

    without replay   only the gaps, as in the paper
    all pairs        annotate without identify
    random pairs     as many as the run trained on, whatever their verdict
    true labels      as many, drawn with the pictures instead of written by the teacher
    format only      the teacher's questions with the student's own answers: short answers, no new content

Controls need pictures with known facts, so they work on the demo only.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

from parityalign.config import results_of
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
    Pair,
    Scores,
    Stream,
    Task,
    VerdictKind,
    WorkFailed,
    content_id,
    sealed,
    write_whole,
)
from parityalign.demo.canvas import Fact, one_of_each_kind
from parityalign.demo.generate import truth
from parityalign.pipeline import Run, leveller
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
    """What controls need of the finished run."""

    images: list[ImageRef]
    judged: list[Judged]
    student_said: Mapping[str, str]
    """The student's answer before, by pair id."""
    steps: int


def run_controls(run: Run) -> None:
    """Trains and scores every control of a finished run, writes `controls.json` and the report once more."""
    aligned = _aligned(run)
    rows = [_control(run, aligned, arm) for arm in _arms(run, aligned)]
    gaps = [pair for pair, verdict in run.judged if verdict.verdict == VerdictKind.TEACHER_ONLY]
    right = sum(is_true(pair, run.tasks[pair.task]) for pair in gaps)
    controls = Controls(controls=tuple(rows), gap_precision=GapPrecision(n=len(gaps), right=right))
    said = json.dumps(sealed(json.loads(controls.model_dump_json())), indent=1, ensure_ascii=False)
    write_whole(run.folder.path / CONTROLS, f"{said}\n")
    write_report(run.folder.path)


def is_true(pair: Pair, task: Task) -> bool:
    """Whether a pair's question is one about the drawn picture and its answer is right by the task's metric."""
    asked = pair.question.casefold()
    answers = [fact.answer for fact in truth(pair.task, Path(pair.image)) if fact.question.casefold() == asked]
    return any(task.metric.score(pair.answer, [answer.casefold()] * 10).value >= 0.5 for answer in answers)


def _aligned(run: Run) -> Aligned:
    if not was_levelled(run.artifact("student")):
        raise WorkFailed(
            f"the run {run.folder.path} has no levelled student to compare with: it trained on nothing, or the trained "
            "one was no better on the held-out pairs"
        )
    verdicts = run.artifact("verdicts")
    return Aligned(
        images=accepted_images(run.artifact("images")),
        judged=run.judged,
        student_said={answer.item_id: answer.text for answer in verdicts.stream(STUDENT_ANSWERS, Answer)},
        steps=run.artifact("student").manifest["result"]["steps"],
    )


def _arms(run: Run, aligned: Aligned) -> Iterator[Arm]:
    settings, seed = run.config.level, run.config.seed

    def chosen(**changes: object) -> Choice:
        return choose_pairs(aligned.judged, settings.model_copy(update=changes), seed)

    held = hold_out(aligned.judged, settings, seed)
    yield Arm("without replay", "the gaps alone, the paper's way", chosen(replay=0.0))
    yield Arm("all pairs", "annotate without identify", chosen(select="all"))
    yield Arm("random pairs", "as many, whatever their verdict", chosen(select="random"))
    free = [image for image in aligned.images if image.image_id not in held.images]
    true = true_pairs(free, Counter(pair.task for pair in chosen().training), seed)
    yield Arm("true labels", "as many, drawn with the pictures", Choice(true, held.pairs, 0), False)
    own = [
        pair.model_copy(update={"answer": aligned.student_said[pair.pair_id]})
        for pair in chosen(select="random").training
        if aligned.student_said[pair.pair_id]
    ]
    yield Arm("format only", "the student's own answers: no new content", Choice(own, held.pairs, 0), False)


def true_pairs(images: Sequence[ImageRef], wanted: Mapping[str, int], seed: int) -> list[Pair]:
    """As many drawn facts of each task as wanted, kinds and pictures evenly as a teacher draws; no fact twice."""
    pairs: list[Pair] = []
    for task, count in sorted(wanted.items()):
        for image, fact in islice(_drawn_facts([image for image in images if image.task == task], Random(seed)), count):
            pair_id = content_id(image.image_id, task, fact.question, fact.answer, "truth")
            pairs.append(
                Pair(
                    pair_id=pair_id,
                    image_id=image.image_id,
                    image=image.path,
                    task=task,
                    question=fact.question,
                    answer=fact.answer,
                    teacher="truth",
                )
            )
    return pairs


def _drawn_facts(images: Sequence[ImageRef], rng: Random) -> Iterator[tuple[ImageRef, Fact]]:
    """Every fact of every picture, in rounds with at most one of each kind per picture, in random order."""
    left = [(image, list(dict.fromkeys(truth(image.task, Path(image.path))))) for image in images]
    while left:
        taken = [(image, fact) for image, facts in left for fact in one_of_each_kind(facts, rng)]
        yield from rng.sample(taken, len(taken))
        gone = {(image.image_id, fact) for image, fact in taken}
        rest = ((image, [fact for fact in facts if (image.image_id, fact) not in gone]) for image, facts in left)
        left = [(image, facts) for image, facts in rest if facts]


def _control(run: Run, aligned: Aligned, arm: Arm) -> Control:
    """Trains, asks and scores one control; what was finished before is kept."""
    folder = f"controls/{arm.name.replace(' ', '-')}"
    changes: dict[str, object] = {"max_steps": aligned.steps, "patience": ENDLESS}
    if not arm.of_the_teacher:
        changes["objective"] = {"answer": 1.0}
    settings = run.config.level.model_copy(update=changes)
    choice = arm.choice
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
        level(choice.training, [pair for pair, _ in choice.held_out], student.path)
        student.finish({"pairs": len(choice.training), "steps": aligned.steps})
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
    return scored(run, answers, arm, aligned.steps)


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
