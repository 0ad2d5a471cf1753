"""ChartQA: questions about the data in a chart, written by people (`human`) or made from texts (`augmented`).

A row of `test/test_human.json` or `test/test_augmented.json`, each a plain list; there are no question ids,
so the place in the list is the id:

    {"imgname": "41699051005347.png", "query": "How many food items are shown?", "label": "14"}

Its image is `test/png/41699051005347.png`. The release wraps everything in a folder `ChartQA Dataset`.
The Hugging Face copies (split `test`) have `query`, `label` (a list of one) and `human_or_machine` (0 human, 1
machine; HuggingFaceM4/ChartQA), or `question`, `answer` and `type` (`human_test` or `augmented_test`;
lmms-lab-encoder/ChartQA), and the picture under `image`.
Metric: relaxed accuracy, 5 % off is right for numbers; papers report both parts and their mean.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from parityalign.core import Benchmark, Question, Row, UserError, quoted_names, read_rows
from parityalign.tasks._files import image_path

_SUBSETS = ("human", "augmented")
_TYPES: Mapping[str, str] = MappingProxyType(
    {"0": "human", "1": "augmented", "human": "human", "machine": "augmented"}
    | {"human_test": "human", "augmented_test": "augmented"}
)
"""The subset of a row of a Hugging Face copy, by the copies' own values."""


def read_test(folder: Path) -> list[Question]:
    """Both parts of the test split in a folder as released, or in the folder around it.

    Raises:
        UserError: A file is missing or holds something else.
    """
    wrapped = folder / "ChartQA Dataset"
    split = (wrapped if wrapped.is_dir() else folder) / "test"
    return [
        _question(row, subset, "query", "label", image_path(split / "png", row.text_or_empty("imgname")))
        for subset in _SUBSETS
        for row in read_rows(split / f"test_{subset}.json")
    ]


def read_row(row: Row) -> Question:
    """A row of a Hugging Face copy; its id is its subset and position."""
    if "human_or_machine" in row.values:
        return _question(row, _part(row, "human_or_machine"), "query", "label")
    if "type" in row.values:
        return _question(row, _part(row, "type"), "question", "answer")
    raise UserError(f"{row.where} has neither 'human_or_machine' nor 'type'; its keys are {quoted_names(row.values)}")


def _part(row: Row, key: str) -> str:
    said = row.text(key)
    if said not in _TYPES:
        raise UserError(f"{row.where}: {key!r} is {said!r}; known are {quoted_names(_TYPES)}")
    return _TYPES[said]


def _question(row: Row, subset: str, asked: str, label: str, image: str = "") -> Question:
    return Question(
        question_id=f"{subset}-{row.place}",
        image=image,
        question=row.text_or_empty(asked),
        answers=row.texts(label),
        subset=subset,
    )


BENCHMARK = Benchmark(
    name="chartqa",
    skill="chartqa",
    read_test=read_test,
    read_row=read_row,
    splits=("test",),
    subsets={
        "both": lambda question: True,
        "human": lambda question: question.subset == "human",
        "augmented": lambda question: question.subset == "augmented",
    },
    questions=2_500,
)
