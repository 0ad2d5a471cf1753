"""ST-VQA, task 1: questions that are answered by the text in a scene.

A row of `train_task_1.json`, under `data` (other keys are not used; one or more answers, in their original case):

    {"question_id": 1, "file_path": "coco-text/COCO_train2014_000000000036.jpg",
     "question": "What is the name of the shop?", "answers": ["Corner Bakery"]}

Its image is `coco-text/COCO_train2014_000000000036.jpg` in the same folder. The Hugging Face copy
danjacobellis/stvqa_task1 (split `train`) has `path`, `question`, `answer` (a list), `image`, and no ids.

The released test split has no answers and is scored by a server, and there is no official validation split. So the
subset `held_out`, the default, takes a tenth of the images of the file with answers: those for which the first 32 bits
of SHA-256 of "stvqa held out 0:" and the image's base name, as a number, are below a tenth of 2 ** 32. All questions
of an image are in the same subset, and other files do not matter. The subset `whole` is the whole file.
Metric: ANLS with threshold 0.5, the measure of the challenge.
"""

import hashlib
from pathlib import Path, PurePosixPath

from parityalign.core import Benchmark, Question, Row, read_rows
from parityalign.tasks._files import image_name, image_path

HELD_OUT_SHARE = 0.1
HELD_OUT_SEED = 0


def read_test(folder: Path) -> list[Question]:
    """All questions of the file with answers in a folder as released.

    Raises:
        UserError: The file is missing or holds something else.
    """
    rows = read_rows(folder / "train_task_1.json", "data")
    return [
        Question(
            question_id=row.text("question_id"),
            image=image_path(folder, row.text_or_empty("file_path")),
            question=row.text_or_empty("question"),
            answers=row.texts("answers"),
        )
        for row in rows
    ]


def read_row(row: Row) -> Question:
    """A row of the Hugging Face copy; its position is its id."""
    return Question(
        question_id=str(row.place),
        image=image_name(row, "path"),
        question=row.text_or_empty("question"),
        answers=row.texts("answer"),
    )


def is_held_out(question: Question) -> bool:
    """Whether a question is about one of the held-out images."""
    name = PurePosixPath(question.image).name
    digest = hashlib.sha256(f"stvqa held out {HELD_OUT_SEED}:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


BENCHMARK = Benchmark(
    name="stvqa",
    skill="stvqa",
    read_test=read_test,
    read_row=read_row,
    splits=("train",),
    subsets={"held_out": is_held_out, "whole": lambda question: True},
    questions=2_600,  # about a tenth of 26,074
)
