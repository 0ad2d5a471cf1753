"""ChartQA: questions about the data in a chart, written by people (`human`) or made from texts (`augmented`).

A row of `test/test_human.json` or `test/test_augmented.json`, each a plain list; there are no question ids,
so the place in the list is the id:

    {"imgname": "41699051005347.png", "query": "How many food items are shown?", "label": "14"}

Its image is `test/png/41699051005347.png`. The release wraps everything in a folder `ChartQA Dataset`.
Metric: relaxed accuracy, 5 % off is right for numbers; papers report both parts and their mean.
"""

from pathlib import Path

from parityalign.matching import chartqa_relaxed_accuracy
from parityalign.records import Question
from parityalign.seams import Task
from parityalign.tasks._files import Row, checked, read_rows
from parityalign.tasks._prompts import ANSWER_PROMPT, annotate_prompt

_SUBSETS = ("human", "augmented")


def read_test(folder: Path) -> list[Question]:
    """Both parts of the test split in a folder as released, or in the folder around it.

    Raises:
        UserError: A file or an image is missing, or a file holds something else.
    """
    wrapped = folder / "ChartQA Dataset"
    split = (wrapped if wrapped.is_dir() else folder) / "test"
    questions = [
        _question(row, f"{subset}-{place}", subset, split)
        for subset in _SUBSETS
        for place, row in enumerate(read_rows(split / f"test_{subset}.json", None))
    ]
    return checked(questions, folder)


def _question(row: Row, question_id: str, subset: str, split: Path) -> Question:
    return Question(
        question_id=question_id,
        image=str(split / "png" / row.text("imgname")),
        question=row.text("query"),
        answers=(row.text("label"),),
        subset=subset,
    )


TASK = Task(
    name="chartqa",
    metric_name="chartqa_relaxed_accuracy",
    metric=chartqa_relaxed_accuracy,
    annotate_prompt=annotate_prompt(
        "Write one question about the data in this chart, and its answer as a number, a word or yes or no."
    ),
    answer_prompt=ANSWER_PROMPT,
    read_test=read_test,
)
