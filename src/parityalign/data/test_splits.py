"""A task's labelled test split, from the configured place, and which of its questions cannot be scored.

Every question of the file is either scored or listed as left out, with the reason.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from parityalign.config import TaskData, is_own
from parityalign.core import (
    TESTS,
    Artifact,
    LeftOut,
    Progress,
    Question,
    Stream,
    Task,
    UserError,
    first_few,
    found_path,
    refuse_changed,
    refuse_repeated,
    write_whole,
)
from parityalign.data.images import Unfit, image_id, open_picture, read_picture
from parityalign.data.questions import Labelled, is_file, open_questions

QUESTIONS = "questions.jsonl"
LEFT_OUT = "left_out.jsonl"

MISSING_IMAGE = "missing_image"
NOT_AN_IMAGE = "not_an_image"
NO_QUESTION = "no_question"
NO_ANSWERS = "no_answers"
LONE_ANSWER = "lone_answer"
OUTSIDE_SUBSET = "outside_subset"
OVER_LIMIT = "over_limit"


class Split(NamedTuple):
    """The questions of a file, and those left out."""

    questions: list[Question]
    left_out: list[LeftOut]


def keep_split(artifact: Artifact, task: Task, data: TaskData, progress: Progress) -> None:
    """Reads the split into an artifact, once; images that are not files become files there.

    Args:
        artifact: Gets `questions.jsonl`, `left_out.jsonl` and such images.
        task: Whose split it is; its metric decides how many answers a question needs.
        data: Where the split is, which subset is taken, and what share may be missing.
        progress: Called with every row, if their number is known.

    Raises:
        UserError: The split cannot be read, an id is given twice, or too many questions cannot be scored.
    """
    if artifact.finished:
        return
    split = read_split(task, data, artifact.path / "images", progress)
    # Images that were not files lie in the artifact, whose folder may have another name while it is being made.
    questions = [_kept(question, artifact) for question in split.questions]
    artifact.stream(QUESTIONS, Question).write(questions)
    artifact.stream(LEFT_OUT, LeftOut).write(split.left_out)
    artifact.finish({"questions": len(split.questions), **Counter(each.reason for each in split.left_out)})


def kept_questions(artifact: Artifact) -> list[Question]:
    """The questions that are scored, with full paths."""
    return [_found(question, artifact.run) for question in artifact.stream(QUESTIONS, Question)]


def questions_in(run: Path, task: str) -> Iterator[Question]:
    """The questions of a task's split in a run folder, with full paths."""
    refuse_changed(run / TESTS / task / QUESTIONS)
    for question in Stream(run / TESTS / task / QUESTIONS, Question, read_only=True):
        yield _found(question, run)


def kept_left_out(artifact: Artifact) -> dict[str, int]:
    """How many questions are not scored, by reason."""
    return dict(Counter(each.reason for each in artifact.stream(LEFT_OUT, LeftOut)))


def _kept(question: Question, artifact: Artifact) -> Question:
    return question.model_copy(update={"image": artifact.kept_path(question.image)})


def _found(question: Question, run: Path) -> Question:
    return question.model_copy(update={"image": found_path(question.image, run)})


def read_split(task: Task, data: TaskData, images: Path, progress: Progress) -> Split:
    """The questions of a split that can be scored, and the others with their reasons.

    Args:
        task: Whose split it is.
        data: Where the split is, which subset is taken, and what share may be missing.
        images: Folder for the images that are not files yet.
        progress: Called with every row, if their number is known.

    Raises:
        UserError: The split cannot be read, an id is given twice, or too many questions cannot be scored.
    """
    inside, reason_of = _subset(task, data), _reasons(task, data)
    questions, left_out, ids = [], [], []
    rows, total = open_questions(task, str(data.test))
    for count, found in enumerate(rows, 1):
        ids.append(found.question.question_id)
        why = reason_of(found) if inside(found.question) else (OUTSIDE_SUBSET, found.question.image)
        if why is None:
            questions.append(_with_file(found, images))
        else:
            left_out.append(LeftOut(question_id=ids[-1], reason=why[0], detail=why[1]))
        if total:
            progress(f"read the test of {task.name}", count, total)
    refuse_repeated(ids, str(data.test))
    _refuse_share(task, data, questions, left_out)
    return Split(questions, left_out)


def _subset(task: Task, data: TaskData) -> Callable[[Question], bool]:
    """Whether a question is in the chosen subset; the user's own file is taken whole by default."""
    subsets = task.benchmark.subsets if task.benchmark else {}
    if data.subset is not None:
        return subsets[data.subset]
    if not subsets or is_own(str(data.test)):
        return lambda question: True
    return next(iter(subsets.values()))


def _reasons(task: Task, data: TaskData) -> Callable[[Labelled], tuple[str, str] | None]:
    """Why a question cannot be scored, as a reason and a detail; None if it can."""
    wanted = None if is_own(str(data.test)) or task.benchmark is None else task.benchmark.annotators
    several = task.metric.needs_several
    fault_of_file = cache(_fault_of_file)  # an image has several questions

    def reason(found: Labelled) -> tuple[str, str] | None:
        question, count = found.question, len(found.question.answers)
        if not question.question.strip():
            return NO_QUESTION, "null or empty"
        if not any(answer.strip() for answer in question.answers):
            return NO_ANSWERS, "null, empty, all blank, or with a null among them"
        if wanted and count != wanted:
            return f"not_{wanted}_answers", f"{count} answers"
        if several and count == 1:
            return LONE_ANSWER, "1 answers"
        if found.fault:
            return found.fault.reason, found.fault.detail
        return _fault(found.picture) if found.picture else fault_of_file(question.image)

    return reason


def _fault_of_file(image: str) -> tuple[str, str] | None:
    return _fault(Path(image)) if image and is_file(Path(image)) else (MISSING_IMAGE, image or "no image is named")


def _fault(picture: Path | bytes) -> tuple[str, str] | None:
    """What is wrong with an image; it is opened as models open it, since they would fail on it."""
    try:
        open_picture(picture) if isinstance(picture, bytes) else read_picture(picture)
    except Unfit as unfit:
        return NOT_AN_IMAGE, str(unfit) if isinstance(picture, bytes) else f"{picture}: {unfit}"
    return None


def _with_file(found: Labelled, folder: Path) -> Question:
    """The question with the path of an image file; bytes are written once, under the hash of their content."""
    if found.picture is None:
        return found.question
    path = folder / f"{image_id(found.picture)}.{open_picture(found.picture).format.lower()}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, found.picture)
    return found.question.model_copy(update={"image": str(path)})


def _refuse_share(task: Task, data: TaskData, questions: Sequence[Question], left_out: Sequence[LeftOut]) -> None:
    """Refuses a split with too many unscored questions, since its score would not be comparable."""
    reasons: dict[str, list[str]] = {}
    for each in left_out:
        if each.reason != OUTSIDE_SUBSET:
            reasons.setdefault(each.reason, []).append(f"{each.question_id} ({each.detail})")
    bad = sum(map(len, reasons.values()))
    total = len(questions) + bad
    if total == 0:
        raise UserError(f"{data.test} has no question in the subset {data.subset!r} of {task.name}; take another")
    if bad and (not questions or bad / total > data.missing):
        raise UserError(_too_many(task, data, total, reasons))


def _too_many(task: Task, data: TaskData, total: int, reasons: Mapping[str, Sequence[str]]) -> str:
    listed = "\n".join(f"  - {reason}: {len(ids):,}: {first_few(ids)}" for reason, ids in reasons.items())
    bad = sum(map(len, reasons.values()))
    advice = (
        f"Complete the files, or set 'tasks.{task.name}.missing' to the share that may be left out "
        f"(it is {data.missing:g})."
        if bad < total
        else "Use a labelled split with its images."
    )
    lone = "\nFor one answer a question set 'metric', such as anls." if LONE_ANSWER in reasons else ""
    return f"{data.test}: {bad:,} of {total:,} questions cannot be scored:\n{listed}\n{advice}{lone}"
