"""DocVQA, single pages: questions about scanned pages of letters, forms, reports.

A row of `val_v1.0_withQT.json` (older releases: `val_v1.0.json`), under `data`, alone or in `spdocvqa_qas/`:

    {"questionId": 49153, "question": "What is the 'actual' value per 1000?", "question_types": ["table/list"],
     "image": "documents/pybv0228_81.png", "docId": 14465, "answers": ["0.28"], "data_split": "val"}

Its image is `spdocvqa_images/pybv0228_81.png`; in older releases `documents/pybv0228_81.png`, or that in `val/`.
Rows of the Hugging Face copies (lmms-lab-encoder/DocVQA, configuration `DocVQA`; HuggingFaceM4/DocumentVQA; split
`validation`) have the same keys, and the picture under `image`.
Metric: ANLS as the challenge's server computes it, on the validation split; the answers of test are only there.
"""

from pathlib import Path, PurePosixPath

from parityalign.core import Benchmark, Question, Row, read_rows
from parityalign.tasks._files import first_there, image_path

_ANSWERS = ("spdocvqa_qas/val_v1.0_withQT.json", "val_v1.0_withQT.json", "spdocvqa_qas/val_v1.0.json", "val_v1.0.json")


def read_test(folder: Path) -> list[Question]:
    """The labelled validation split in a folder as released.

    Raises:
        UserError: The file is missing or holds something else.
    """
    rows = read_rows(first_there(folder, _ANSWERS), "data")
    return [_question(row, _image(folder, row.text_or_empty("image"))) for row in rows]


def read_row(row: Row) -> Question:
    """A row of a Hugging Face copy."""
    return _question(row, "")


def _image(folder: Path, name: str) -> str:
    """Today's release has all pages in one folder; the file names still begin with `documents/`."""
    pages = folder / "spdocvqa_images"
    if pages.is_dir():
        return image_path(pages, PurePosixPath(name).name)
    return image_path(folder / "val" if (folder / "val").is_dir() else folder, name)


def _question(row: Row, image: str) -> Question:
    return Question(
        question_id=row.text("questionId"),
        image=image,
        question=row.text_or_empty("question"),
        answers=row.texts("answers"),
    )


BENCHMARK = Benchmark(
    name="docvqa",
    skill="docvqa",
    read_test=read_test,
    read_row=read_row,
    splits=("validation", "val"),
    configs=("DocVQA",),
    questions=5_349,
)
