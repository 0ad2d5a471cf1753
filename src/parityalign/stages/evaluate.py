"""Evaluate: the student before, the student after and the teacher answer the labelled test splits.

Raw answers are kept and scored: each official metric does its own normalisation.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from parityalign.config import EvaluateSettings
from parityalign.core import Answer, Artifact, Decoding, Progress, Question, Scores, Task, sample, sealed, write_whole
from parityalign.data import OVER_LIMIT
from parityalign.engines import Asked, CachedModel
from parityalign.stages._scores import AnsweredQuestion, score_run
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.level import was_levelled

BEFORE_FILE, AFTER_FILE, TEACHER_FILE = "before.jsonl", "after.jsonl", "teacher.jsonl"

_NOTHING: Mapping[str, Mapping[str, int]] = MappingProxyType({})


def _work(run: StageRun, artifact: Artifact) -> None:
    after = run.levelled if was_levelled(run.artifact("student")) else run.student
    models, settings, seed = Models(run.student, after, run.teacher), run.config.evaluate, run.config.seed
    evaluate_models(artifact, run.tests, run.tasks, models, settings=settings, seed=seed, progress=run.progress)


def _at_most(run: StageRun) -> int:
    """All questions to the levelled student, and what the other two have not answered."""
    settings = run.config.evaluate
    asked = questions_asked(run.tests, run.tasks, settings=settings, seed=run.config.seed)
    others = (run.student, run.teacher)
    return len(asked) + sum(model.lacking(asked, decoding=Decoding(settings.max_new_tokens)) for model in others)


STAGE = Stage(
    "evaluate",
    artifact="answers",
    of=("tests", "student model", "student", "teacher model", "answer prompt"),
    settings=("evaluate.limit", "evaluate.max_new_tokens", "seed"),
    derives=True,
    at_most=_at_most,
    work=_work,
    help="Score the student before, the student after and the teacher on the labelled test splits.",
)


class Models(NamedTuple):
    """The evaluated models."""

    before: CachedModel
    after: CachedModel
    """The one before, if the student was not trained."""
    teacher: CachedModel


def evaluate_models(
    artifact: Artifact,
    tests: Mapping[str, Sequence[Question]],
    tasks: Mapping[str, Task],
    models: Models,
    *,
    settings: EvaluateSettings,
    seed: int,
    progress: Progress,
) -> None:
    """Collects the models' greedy answers, with the prompt of identify and level.

    Args:
        artifact: Gets `before.jsonl`, `after.jsonl` and `teacher.jsonl`.
        tests: The labelled questions of each task that has a test split.
        tasks: All tasks by name.
        models: The models to ask.
        settings: How many questions, and how they are asked.
        seed: Selects the questions if their number is limited.
        progress: Called after every batch.
    """
    if artifact.finished:
        return

    def ask(file: str, model: CachedModel) -> list[Answer]:
        def on_progress(done: int, total: int) -> None:
            progress(f"evaluate {Path(file).stem}", done, total)

        answers = answer_tests(model, tests, tasks, settings=settings, seed=seed, on_progress=on_progress)
        artifact.stream(file, Answer).write(answers)
        return answers

    before = ask(BEFORE_FILE, models.before)
    ask(AFTER_FILE, models.after)
    teacher = ask(TEACHER_FILE, models.teacher)
    not_asked = sum(answer.not_asked is not None for answer in (*before, *teacher))
    artifact.finish({"questions": len(before), "not_asked": not_asked})


def answer_tests(
    model: CachedModel,
    tests: Mapping[str, Sequence[Question]],
    tasks: Mapping[str, Task],
    *,
    settings: EvaluateSettings,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> list[Answer]:
    """One model's greedy answers to the questions of all test splits, task by task."""
    answers = model.answer(
        questions_asked(tests, tasks, settings=settings, seed=seed),
        decoding=Decoding(settings.max_new_tokens),
        batch_size=settings.batch_size,
        on_progress=on_progress,
    )
    return list(answers.values())


def speed_questions(
    tests: Mapping[str, Sequence[Question]], tasks: Mapping[str, Task], *, settings: EvaluateSettings, seed: int
) -> list[Asked]:
    """The questions that the students are timed on: a seeded sample of the scored ones."""
    asked = questions_asked(tests, tasks, settings=settings, seed=seed)
    return sample(asked, settings.speed_questions, f"speed {seed}", lambda question: question.item_id)


def score_run_answers(
    artifact: Artifact,
    tests: Mapping[str, Sequence[Question]],
    tasks: Mapping[str, Task],
    *,
    settings: EvaluateSettings,
    seed: int,
    left_out: Mapping[str, Mapping[str, int]] = _NOTHING,
) -> Scores:
    """The scores of the answers collected by `evaluate` with the same arguments.

    `left_out` says how many questions of each task's file cannot be scored, by reason.
    """
    streams = [artifact.stream(file, Answer) for file in (BEFORE_FILE, AFTER_FILE, TEACHER_FILE)]
    return score_answers(streams, tests, tasks, settings=settings, seed=seed, left_out=left_out)


def score_answers(
    by_model: Sequence[Iterable[Answer]],
    tests: Mapping[str, Sequence[Question]],
    tasks: Mapping[str, Task],
    *,
    settings: EvaluateSettings,
    seed: int,
    left_out: Mapping[str, Mapping[str, int]] = _NOTHING,
) -> Scores:
    """The scores of three models' answers to the same test splits: before, after and teacher, in this order."""
    texts = [{answer.item_id: answer.text for answer in answers} for answers in by_model]
    chosen = _chosen(tests, settings, seed)
    not_scored = {
        name: {**left_out.get(name, {}), OVER_LIMIT: len(tests[name]) - len(questions)}
        for name, questions in chosen.items()
    }
    said = {
        name: [
            AnsweredQuestion(question, *(text[item_id] for text in texts))
            for question in questions
            for item_id in [_item_id(name, question)]
        ]
        for name, questions in chosen.items()
    }
    return score_run(said, tasks, not_scored=not_scored, resamples=settings.resamples, seed=seed)


def write_scores(path: Path, scores: Scores) -> None:
    """Writes `scores.json`, unless it is unchanged.

    Raises:
        WorkFailed: The disk refused.
    """
    text = json.dumps(sealed(json.loads(scores.model_dump_json())), indent=1, ensure_ascii=False) + "\n"
    if not path.exists() or path.read_bytes() != text.encode():
        write_whole(path, text)


def _chosen(
    tests: Mapping[str, Sequence[Question]], settings: EvaluateSettings, seed: int
) -> dict[str, Sequence[Question]]:
    if settings.limit is None:
        return dict(tests)
    return {
        name: sample(questions, settings.limit, f"evaluate {seed}", lambda question: question.question_id)
        for name, questions in tests.items()
    }


def questions_asked(
    tests: Mapping[str, Sequence[Question]], tasks: Mapping[str, Task], *, settings: EvaluateSettings, seed: int
) -> list[Asked]:
    """The questions that each model is asked: those of all test splits, or a seeded sample."""
    chosen = _chosen(tests, settings, seed)
    return [question_as_asked(question, tasks[name]) for name, questions in chosen.items() for question in questions]


def question_as_asked(question: Question, task: Task) -> Asked:
    """A test split's question for a model."""
    prompt = task.answer_prompt.format(question=question.question)
    return Asked(_item_id(task.name, question), question.image, prompt, untrusted=question.question)


def _item_id(task: str, question: Question) -> str:
    return f"{task}:{question.question_id}"
