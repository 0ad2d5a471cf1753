"""ST-VQA, task 1: questions that only the text in a scene answers.

A row of `train_task_1.json`, under `data` (other keys are not used; one answer or more, their case is kept):

    {"question_id": 1, "file_path": "coco-text/COCO_train2014_000000000036.jpg",
     "question": "What is the name of the shop?", "answers": ["Corner Bakery"]}

Its image is `coco-text/COCO_train2014_000000000036.jpg` in the same folder. The released test split has no
answers and is scored by a server, so the file with answers is read, whole.
Metric: ANLS with threshold 0.5, the measure of the challenge.
"""

from pathlib import Path

from parityalign.matching import anls
from parityalign.records import Question
from parityalign.seams import Task
from parityalign.tasks._files import Row, checked, read_rows
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt


def read_test(folder: Path) -> list[Question]:
    """All questions of the file with answers in a folder as released.

    Raises:
        UserError: A file or an image is missing, or a file holds something else.
    """
    rows = read_rows(folder / "train_task_1.json", "data")
    return checked([_question(row, folder) for row in rows], folder)


def _question(row: Row, folder: Path) -> Question:
    return Question(
        question_id=row.text("question_id"),
        image=str(folder / row.text("file_path")),
        question=row.text("question"),
        answers=row.texts("answers"),
    )


TASK = Task(
    name="stvqa",
    metric_name="anls",
    metric=anls,
    annotate_prompt=annotate_prompt(
        "Write one question that can only be answered by reading the text in this scene, "
        "such as a sign, a shop or a vehicle, and its answer in a single word or phrase."
    ),
    answer_prompt=ANSWER_PROMPT,
    read_test=read_test,
)
