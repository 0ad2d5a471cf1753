"""Pairs of one's own: each row of a task's files, with the image that it is about and what became of it.

pairs/given.jsonl    one line a row: where it stands, its image, `ok` or why there is no pair, the models' answers
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from parityalign.config import PairsFile, RunConfig
from parityalign.core import Answer, Artifact, ImageRef, Pair, Record, Rejected, Task, UserError, content_id
from parityalign.data import OwnPair, read_own_pairs
from parityalign.engines import Asked
from parityalign.stages.intake import ACCEPTED, QUARANTINE, REPEATS, image_with_path
from parityalign.stages.parsing import NoPair, ParsedPair, checked_pair

GIVEN = "given.jsonl"
OK = "ok"
DUPLICATE = "duplicate"
"""An earlier draw or row on the image gave the same question and answer."""
REPEAT_QUESTION = "repeat_question"
"""An earlier draw or row on the image gave the same question with another answer; the first one is kept."""
NO_IMAGE = "no_image"
"""The row names no image."""
NOT_FOUND = "not_taken_in"
_WRITER = "given:"
_ASKED = "asked:"
_ANY_ANSWER = "-"
"""Stands in for an answer while a question is checked alone."""
_SHOWN = 3


class GivenRow(Record):
    """A row of a file of pairs, and what became of it."""

    where: str
    """File and place."""
    own_id: str
    """Its id in the file."""
    task: str
    image_id: str
    """The image that it is about; of an image that repeats another one, the other's. Empty: it was not taken in."""
    outcome: str
    """`ok`, or why there is no pair: of the image as in `quarantine.jsonl`, of the text as of a teacher's reply."""
    writer: str
    """Stands in the place of the teacher: `given:` and the name of the file, or `asked:` where the teacher answered."""
    pair_id: str | None = None
    question: str = ""
    """As it was read; empty where there is no pair."""
    answer: str = ""
    student_text: str | None = None
    """The student's answer to the pair, where the run takes it from the file."""
    teacher_text: str | None = None


class GivenAnswers(NamedTuple):
    """What files say that the models answered, by pair id."""

    student: Mapping[str, str]
    teacher: Mapping[str, str]


NONE_GIVEN = GivenAnswers({}, {})


def outcome_of(parsed: ParsedPair, known: Iterable[ParsedPair]) -> str:
    """The outcome of a pair, given the earlier pairs of the same image."""
    same_question = [pair for pair in known if pair.question.casefold() == parsed.question.casefold()]
    if not same_question:
        return OK
    same = any(pair.answer.casefold() == parsed.answer.casefold() for pair in same_question)
    return DUPLICATE if same else REPEAT_QUESTION


class FileOfPairs(NamedTuple):
    """What a file of pairs of a task holds."""

    task: Task
    spec: PairsFile
    rows: Sequence[OwnPair]


def files_of_pairs(config: RunConfig, tasks: Mapping[str, Task]) -> list[FileOfPairs]:
    """Reads all files of pairs, task by task.

    Raises:
        UserError: A file is broken.
    """
    return [
        FileOfPairs(tasks[name], spec, [*read_own_pairs(spec, name)])
        for name, data in config.tasks.items()
        for spec in data.pairs
    ]


def own_questions(files: Iterable[FileOfPairs], images: Artifact) -> list[Asked]:
    """The questions in the files that have no answers yet, each once; they are asked as those of pairs are.

    Args:
        files: All of them.
        images: What intake made of the images that the files name.
    """
    without_answers = [each for each in files if each.spec.answers == "teacher"]
    if not without_answers:
        return []
    taken = _Taken(images)
    questions: dict[str, Asked] = {}
    for task, _, rows in without_answers:
        for own in rows:
            image, _ = taken.find(task.name, own.image)
            question = _question(own, task, image)
            if isinstance(question, Asked):
                questions[question.item_id] = question
    return [*questions.values()]


def take_own_pairs(pairs: Artifact, images: Artifact, files: Sequence[FileOfPairs], said: Mapping[str, Answer]) -> None:
    """Records what became of each row of the files of pairs.

    Args:
        pairs: Gets `given.jsonl` if there are such files.
        images: What intake made of the images that the files name.
        files: All of them.
        said: The teacher's answers to `own_questions`, by item id.

    Raises:
        UserError: None of the rows of a file can be used.
    """
    taken = _Taken(images)
    rows: list[GivenRow] = []
    known: dict[str, dict[str, list[ParsedPair]]] = {}
    for file in files:
        of_task = known.setdefault(file.task.name, {})
        of_file = [_row(own, file, taken, said, of_task) for own in file.rows]
        _refuse_without_pair(of_file, file.spec)
        rows += of_file
    if rows:
        pairs.stream(GIVEN, GivenRow).write(rows)


def is_own(pair: Pair) -> bool:
    """Whether a pair came in with a file, and its answer is not the teacher's."""
    return pair.teacher.startswith(_WRITER)


def vouched_for(pair: Pair) -> bool:
    """Whether a person stands behind a pair: it is one's own, or was corrected."""
    return is_own(pair) or pair.written is not None


def given_rows(pairs: Artifact) -> list[GivenRow]:
    """What became of the rows of all files of pairs; none where there are no such files."""
    return [*pairs.stream(GIVEN, GivenRow)]


def counts_of_rows(rows: Sequence[GivenRow]) -> dict[str, int]:
    """How many rows became pairs, with the answers of their file (`given`) or the teacher's (`asked`), and why not."""
    used = Counter(row.writer.partition(":")[0] for row in rows if row.outcome == OK)
    left = Counter(row.outcome for row in rows if row.outcome != OK)
    return {"given": 0, **used, **{f"given: {outcome}": count for outcome, count in sorted(left.items())}}


def pair_of(row: GivenRow) -> Pair | None:
    """The pair in a row, if there is one; without a path, as those that the teacher wrote."""
    if row.pair_id is None:
        return None
    return Pair(
        pair_id=row.pair_id,
        image_id=row.image_id,
        image="",
        task=row.task,
        question=row.question,
        answer=row.answer,
        teacher=row.writer,
    )


def given_answers(pairs: Artifact) -> GivenAnswers:
    """The models' answers that came in with the pairs of a run and count."""
    rows = [row for row in given_rows(pairs) if row.pair_id]
    return GivenAnswers(
        {row.pair_id or "": row.student_text for row in rows if row.student_text is not None},
        {row.pair_id or "": row.teacher_text for row in rows if row.teacher_text is not None},
    )


class _Taken:
    """What became of the images that intake looked at, by task and by the name that their source gave them."""

    def __init__(self, images: Artifact) -> None:
        self._kept_path = images.kept_path
        self._images: dict[tuple[str, str], ImageRef] = {}
        self._rejected: dict[tuple[str, str], Rejected] = {}
        for image in images.stream(ACCEPTED, ImageRef):
            found = image_with_path(image, images.run)
            for name in filter(None, (image.path, image.origin)):
                self._images[image.task, name] = found
        for rejected in images.stream(QUARANTINE, Rejected):
            self._rejected[rejected.task, rejected.path] = rejected

    def find(self, task: str, name: str) -> tuple[ImageRef | None, str]:
        """(image, empty) or (none, why there is none)."""
        if not name:
            return None, NO_IMAGE
        kept = self._kept_path(name)
        rejected = self._rejected.get((task, kept))
        if rejected and rejected.reason in REPEATS:
            kept = rejected.partner
        elif rejected:
            return None, rejected.reason
        image = self._images.get((task, kept))
        return image, "" if image else NOT_FOUND


def _row(
    own: OwnPair,
    of: FileOfPairs,
    taken: _Taken,
    said: Mapping[str, Answer],
    known: dict[str, list[ParsedPair]],
) -> GivenRow:
    """What becomes of a row; a pair is added to those that are known of its image."""
    (task, spec, _), given, file = of, own.given, Path(of.spec.file)
    image, lacking = taken.find(task.name, own.image)
    image_id = image.image_id if image else ""
    parsed = _parsed(own, of, image, said)
    of_image = known.setdefault(image_id, [])
    fault = outcome_of(parsed, of_image) if isinstance(parsed, ParsedPair) else given.fault or lacking or str(parsed)
    row = GivenRow(
        where=given.where.replace(str(file), file.name, 1),
        own_id=given.pair_id,
        task=task.name,
        image_id=image_id,
        outcome=fault,
        writer=f"{_ASKED if spec.answers == 'teacher' else _WRITER}{file.name}",
    )
    if not isinstance(parsed, ParsedPair) or fault != OK:
        return row
    of_image.append(parsed)
    pair_id = content_id(image_id, task.name, *parsed, row.writer)
    given_texts = spec.answers == "given"
    texts = {"student_text": given.student_text, "teacher_text": given.teacher_text} if given_texts else {}
    return row.model_copy(update={"pair_id": pair_id, **parsed._asdict(), **texts})


def _parsed(
    own: OwnPair, of: FileOfPairs, image: ImageRef | None, said: Mapping[str, Answer]
) -> ParsedPair | NoPair | None:
    """The pair of a row, with the teacher's answer where the file has none; None: row or image cannot be used."""
    if image is None or own.given.fault:
        return None
    answer = own.given.answer or ""
    if of.spec.answers == "teacher":
        question = _question(own, of.task, image)
        if not isinstance(question, Asked):
            return question
        found = said.get(question.item_id)
        answer = found.text if found else ""
    return checked_pair(_text(own, of.task), answer)


def _question(own: OwnPair, task: Task, image: ImageRef | None) -> Asked | NoPair | None:
    """The question of a row as the teacher is asked it; None: row or image cannot be used."""
    if image is None or own.given.fault:
        return None
    parsed = checked_pair(_text(own, task), _ANY_ANSWER)
    if not isinstance(parsed, ParsedPair):
        return parsed
    prompt = task.answer_prompt.format(question=parsed.question)
    item_id = content_id(image.image_id, task.name, parsed.question)
    return Asked(item_id, image.path, prompt, parsed.question, image.image_id)


def _text(own: OwnPair, task: Task) -> str:
    return _without_prompt(own.given.question or "", task.answer_prompt)


def _without_prompt(question: str, answer_prompt: str) -> str:
    """The question, without the task's own prompt around it, as exports have it that were made with prompts."""
    before, _, after = answer_prompt.format(question="\0").partition("\0")
    framed = question.startswith(before) and question.endswith(after) and len(question) > len(before) + len(after)
    return question[len(before) : len(question) - len(after)] if framed else question


def _refuse_without_pair(rows: Sequence[GivenRow], spec: PairsFile) -> None:
    if any(row.pair_id for row in rows):
        return
    counts = Counter(row.outcome for row in rows)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    first = "\n  ".join(f"{row.where}: {row.outcome}" for row in rows[:_SHOWN])
    raise UserError(
        f"none of the {len(rows)} pairs in {spec.file} can be used ({told}). The first ones:\n  {first}\n"
        "Paths of images start at `image_folder`, or in the folder of the file."
    )
