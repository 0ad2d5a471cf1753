"""OK-VQA 1.1: questions that need knowledge from outside the picture.

A row of `OpenEnded_mscoco_val2014_questions.json`, under `questions`, and the row of
`mscoco_val2014_annotations.json`, under `annotations`, that has the same id (ten answers, stemmed):

    {"question_id": 2971475, "image_id": 297147, "question": "What sport can you use this for?"}
    {"question_id": 2971475, "image_id": 297147, "answers": [{"answer_id": 1, "answer": "race"}, ...]}

Its image is `val2014/COCO_val2014_000000297147.jpg`.
The Hugging Face copies have `question_id`, `question`, `image`, and `answers` as ten texts (lmms-lab-encoder/OK-VQA,
split `val2014`) or as objects like the above (HuggingFaceM4/OK-VQA, split `validation`).
Metric: VQA accuracy of the official script. It needs short answers in lower case, as the references are. If
all ten agree (13 % of the questions) it compares raw texts, and "Tennis" or "tennis." is wrong for "tennis".
"""

from pathlib import Path

from parityalign.core import Benchmark, Question, Row, UserError, read_rows
from parityalign.tasks._files import by_id, image_name, image_path

_QUESTIONS = "OpenEnded_mscoco_val2014_questions.json"
_ANNOTATIONS = "mscoco_val2014_annotations.json"


def read_test(folder: Path) -> list[Question]:
    """The val2014 split, which papers report as their test, in a folder as released.

    Raises:
        UserError: A file is missing, holds something else or is of another release.
    """
    asked = by_id(read_rows(folder / _QUESTIONS, "questions"), "question_id")
    answered = by_id(read_rows(folder / _ANNOTATIONS, "annotations"), "question_id")
    alone = sorted(asked.keys() ^ answered.keys())
    if alone:
        raise UserError(
            f"{folder}: {len(alone)} ids are in only one of {_QUESTIONS} and {_ANNOTATIONS}, "
            f"such as {alone[0]}; take both files from one release"
        )
    return [
        _question(row, image_path(folder / "val2014", _coco_name(row), ".jpg"), answered[name])
        for name, row in asked.items()
    ]


def read_row(row: Row) -> Question:
    """A row of a Hugging Face copy."""
    return _question(row, image_name(row, "image_id"), row)


def _question(row: Row, image: str, annotation: Row) -> Question:
    return Question(
        question_id=row.text("question_id"),
        image=image,
        question=row.text_or_empty("question"),
        answers=_answers(annotation),
    )


def _answers(row: Row) -> tuple[str, ...]:
    """The ten `answer`s, from a list of texts or objects, or from one object of lists (an older form of the copies)."""
    found = row.values.get("answers")
    if isinstance(found, dict):
        return Row(f"{row.where}: 'answers'", found).texts("answer")
    if isinstance(found, list) and found and isinstance(found[0], dict):
        answers = [answer.text_or_none("answer") for answer in row.rows("answers")]
        return () if None in answers else tuple(answer for answer in answers if answer is not None)
    return row.texts("answers")


def _coco_name(row: Row) -> str:
    image_id = row.text_or_empty("image_id")
    if not image_id:
        return ""
    if not image_id.isdecimal():
        raise UserError(f"{row.where}: 'image_id' should be a COCO number, but is {image_id!r}")
    return f"COCO_val2014_{int(image_id):012d}"


BENCHMARK = Benchmark(
    name="okvqa",
    skill="okvqa",
    read_test=read_test,
    read_row=read_row,
    splits=("val2014", "validation"),
    annotators=10,
    questions=5_046,
)
