"""InfographicVQA: questions about infographics, whose answers may be counted, sorted or listed.

A row of `infographicsVQA_val_v1.0_withQT.json` (without question types: `infographicsVQA_val_v1.0.json`), under `data`,
alone or in `infographicsvqa_qas/`:

    {"questionId": 98313, "question": "Which social platform has heavy female audience?",
     "image_local_name": "37313.jpeg", "answers": ["pinterest"], "answer_type": ["single span"], "data_split": "val"}

Its image is `infographicsvqa_images/37313.jpeg`, or that in `images/`.
Rows of the Hugging Face copy (lmms-lab-encoder/DocVQA, configuration `InfographicVQA`, split `validation`) have
`questionId`, `question`, `answers`, and the picture under `image`.
Metric: ANLS as the challenge's server computes it, on the validation split; the answers of test are only there.
"""

from pathlib import Path

from parityalign.core import Benchmark, Question, Row, read_rows
from parityalign.tasks._files import first_there, image_path

_WITH_TYPES, _PLAIN = "infographicsVQA_val_v1.0_withQT.json", "infographicsVQA_val_v1.0.json"
_ANSWERS = (f"infographicsvqa_qas/{_WITH_TYPES}", _WITH_TYPES, f"infographicsvqa_qas/{_PLAIN}", _PLAIN)


def read_test(folder: Path) -> list[Question]:
    """The labelled validation split in a folder as released.

    Raises:
        UserError: The file is missing or holds something else.
    """
    images = folder / ("images" if (folder / "images").is_dir() else "infographicsvqa_images")
    rows = read_rows(first_there(folder, _ANSWERS), "data")
    return [_question(row, image_path(images, row.text_or_empty("image_local_name"))) for row in rows]


def read_row(row: Row) -> Question:
    """A row of a Hugging Face copy."""
    return _question(row, "")


def _question(row: Row, image: str) -> Question:
    return Question(
        question_id=row.text("questionId"),
        image=image,
        question=row.text_or_empty("question"),
        answers=row.texts("answers"),
    )


BENCHMARK = Benchmark(
    name="infographicvqa",
    skill="infographicvqa",
    read_test=read_test,
    read_row=read_row,
    splits=("validation", "val"),
    configs=("InfographicVQA",),
    questions=2_801,
)
