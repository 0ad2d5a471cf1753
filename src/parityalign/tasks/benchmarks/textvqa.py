"""TextVQA 0.5.1: questions about the words and numbers in a picture.

A row of `TextVQA_0.5.1_val.json`, under `data` (other keys are not used; there are always ten answers):

    {"question_id": 34602, "image_id": "003a8ae2ef43b901", "question": "what is the brand of this camera?",
     "answers": ["nous les gosses", "dakota", "clos culombu", ...]}

Its image is `train_images/003a8ae2ef43b901.jpg`, a folder that the validation split shares with train.
Rows of its Hugging Face copies (lmms-lab-encoder/textvqa, facebook/textvqa; split `validation`) have the same keys, and
the picture under `image`.
Metric: VQA accuracy with the EvalAI processor, as papers report it on the validation split.
"""

from pathlib import Path

from parityalign.core import Benchmark, Question, Row, read_rows
from parityalign.tasks._files import image_name, image_path


def read_test(folder: Path) -> list[Question]:
    """The labelled validation split in a folder as released.

    Raises:
        UserError: The file is missing or holds something else.
    """
    rows = read_rows(folder / "TextVQA_0.5.1_val.json", "data")
    return [_question(row, image_path(folder / "train_images", row.text_or_empty("image_id"), ".jpg")) for row in rows]


def read_row(row: Row) -> Question:
    """A row of a Hugging Face copy."""
    return _question(row, image_name(row, "image_id"))


def _question(row: Row, image: str) -> Question:
    return Question(
        question_id=row.text("question_id"),
        image=image,
        question=row.text_or_empty("question"),
        answers=row.texts("answers"),
    )


BENCHMARK = Benchmark(
    name="textvqa",
    skill="textvqa",
    read_test=read_test,
    read_row=read_row,
    splits=("validation", "val"),
    annotators=10,
    questions=5_000,
)
