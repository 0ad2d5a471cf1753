"""OCRBench (version 1): a thousand questions of five kinds that are answered by reading, from 29 data sets.

A row of `OCRBench.json`, a plain list, alone or in `OCRBench/` or `json_files/`; its ids are those of the 29 data sets
and repeat, so the place in the list is the id:

    {"dataset_name": "IIIT5K", "id": 2843, "image_path": "IIIT5K/test/918_1.png", "type": "Regular Text Recognition",
     "question": "what is written in the image?", "answers": "CENTRE"}

Its image is `OCRBench_Images/IIIT5K/test/918_1.png`. The Hugging Face copy (echo840/OCRBench, split `test`) has
`dataset`, `question`, `question_type`, `answer` (a list), and the picture under `image`.
Metric: whether an answer stands in the prediction. The authors give the number of the thousand that are right.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from parityalign.core import Benchmark, Question, Row, UserError, quoted_names, read_rows
from parityalign.tasks._files import first_there, image_path, in_subset

_FILE = "OCRBench.json"
_FILES = (f"OCRBench/{_FILE}", _FILE, f"json_files/{_FILE}", f"OCRBench/json_files/{_FILE}")
_FORMULAS = "HME100k"
"""The data set of formulas, whose answers have to be met exactly."""
_SUBSETS: Mapping[str, str] = MappingProxyType(
    {
        "Regular Text Recognition": "text_recognition",
        "Irregular Text Recognition": "text_recognition",
        "Artistic Text Recognition": "text_recognition",
        "Handwriting Recognition": "text_recognition",
        "Digit String Recognition": "text_recognition",
        "Non-Semantic Text Recognition": "text_recognition",
        "Scene Text-centric VQA": "scene_vqa",
        "Doc-oriented VQA": "document_vqa",
        "Key Information Extraction": "key_information",
        "Handwritten Mathematical Expression Recognition": "formulas",
    }
)
"""The authors' five sums by the ten types."""


def read_test(folder: Path) -> list[Question]:
    """All questions in a folder as released.

    Raises:
        UserError: The file is missing or holds something else.
    """
    images = folder / "OCRBench_Images"
    return [
        _question(row, ("dataset_name", "type", "answers"), image_path(images, row.text_or_empty("image_path")))
        for row in read_rows(first_there(folder, _FILES))
    ]


def read_row(row: Row) -> Question:
    """A row of the Hugging Face copy."""
    return _question(row, ("dataset", "question_type", "answer"), "")


def _question(row: Row, keys: tuple[str, str, str], image: str) -> Question:
    data_set, kind, answers = keys
    subset = _SUBSETS.get(row.text(kind))
    if subset is None:
        raise UserError(f"{row.where}: {kind!r} is {row.text(kind)!r}; known are {quoted_names(_SUBSETS)}")
    return Question(
        question_id=str(row.place),
        image=image,
        question=row.text_or_empty("question"),
        answers=row.plain_texts(answers),
        subset=subset,
        exact=(True,) if row.text(data_set) == _FORMULAS else (),
    )


BENCHMARK = Benchmark(
    name="ocrbench",
    skill="ocrbench",
    read_test=read_test,
    read_row=read_row,
    splits=("test",),
    subsets={
        "whole": lambda question: True,
        **{subset: in_subset(subset) for subset in dict.fromkeys(_SUBSETS.values())},
    },
    questions=1_000,
)
