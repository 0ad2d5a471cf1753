"""OK-VQA 1.1: questions that need knowledge from outside the picture.

A row of `OpenEnded_mscoco_val2014_questions.json`, under `questions`, and the row of
`mscoco_val2014_annotations.json`, under `annotations`, that has the same id (ten answers, stemmed):

    {"question_id": 2971475, "image_id": 297147, "question": "What sport can you use this for?"}
    {"question_id": 2971475, "image_id": 297147, "answers": [{"answer_id": 1, "answer": "race"}, ...]}

Its image is `val2014/COCO_val2014_000000297147.jpg`.
Metric: VQA accuracy of the official script. It needs short answers in lower case, as the references are. If
all ten agree (13 % of the questions) it compares raw texts, and "Tennis" or "tennis." is wrong for "tennis".
"""

from pathlib import Path

from parityalign.errors import UserError
from parityalign.matching import vqa_accuracy_official
from parityalign.records import Question
from parityalign.seams import Task
from parityalign.tasks._files import Row, by_id, checked, read_rows
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

_QUESTIONS = "OpenEnded_mscoco_val2014_questions.json"
_ANNOTATIONS = "mscoco_val2014_annotations.json"


def read_test(folder: Path) -> list[Question]:
    """The val2014 split, which papers report as their test, in a folder as released.

    Raises:
        UserError: A file or an image is missing, or a file holds something else or is of another release.
    """
    asked = by_id(read_rows(folder / _QUESTIONS, "questions"), "question_id")
    answered = by_id(read_rows(folder / _ANNOTATIONS, "annotations"), "question_id")
    alone = sorted(asked.keys() ^ answered.keys())
    if alone:
        raise UserError(
            f"{folder}: {len(alone)} ids stand in only one of {_QUESTIONS} and {_ANNOTATIONS}, "
            f"such as {alone[0]}; take both files from one release"
        )
    return checked([_question(row, answered[name], folder) for name, row in asked.items()], folder)


def _question(row: Row, annotation: Row, folder: Path) -> Question:
    return Question(
        question_id=row.text("question_id"),
        image=str(folder / "val2014" / f"COCO_val2014_{_image_number(row):012d}.jpg"),
        question=row.text("question"),
        answers=tuple(answer.text("answer") for answer in annotation.rows("answers")),
    )


def _image_number(row: Row) -> int:
    image_id = row.text("image_id")
    if not image_id.isdecimal():
        raise UserError(f"{row.where}: 'image_id' should be a COCO number, but is {image_id!r}")
    return int(image_id)


TASK = Task(
    name="okvqa",
    metric_name="vqa_accuracy_official",
    metric=vqa_accuracy_official,
    annotate_prompt=annotate_prompt(
        "Write one question about this image that needs knowledge from outside the picture, "
        "and its answer in a single word or phrase."
    ),
    answer_prompt=ANSWER_PROMPT,
    read_test=read_test,
)
