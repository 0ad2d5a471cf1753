"""Rows as two evaluators write them: a question, its answers, and what a model said.

lmms-eval    a line of `..._samples_TASK.jsonl`: {"doc_id": 7, "input": "What is sold?\\nAnswer the question ...",
             "target": "['tea', 'Tea']", "filtered_resps": "tea", ...}; earlier versions have ["tea"]
vlmevalkit   a row of MODEL_DATASET.xlsx, .tsv, .csv or .json: index, question, answer, prediction, and others
"""

from collections.abc import Collection
from typing import NamedTuple

from parityalign.core import Row, UserError

LMMS_EVAL = "lmms-eval"
VLMEVALKIT = "vlmevalkit"
_POST_PROMPT = "\nAnswer the question"
"""What most of lmms-eval's tasks put behind a question begins with this."""


class Sample(NamedTuple):
    """What a row says."""

    item_id: str
    question: str | None
    answers: tuple[str, ...]
    prediction: str | None
    image: str
    """Path of its image, where the row has one."""


def evaluator_of(keys: Collection[str]) -> str | None:
    """Which evaluator writes rows with these keys; None for others, and for rows with the names of this house."""
    if "pair_id" in keys or "answers" in keys:
        return None
    if {"doc_id", "filtered_resps"} <= {*keys}:
        return LMMS_EVAL
    return VLMEVALKIT if {"index", "question", "prediction"} <= {*keys} else None


def read_sample(row: Row) -> Sample:
    """What an evaluator's row says.

    Raises:
        UserError: It is of another form.
    """
    return _of_lmms_eval(row) if evaluator_of(row.values) == LMMS_EVAL else _of_vlmevalkit(row)


def _of_lmms_eval(row: Row) -> Sample:
    asked = row.values.get("input")
    return Sample(
        item_id=row.text("doc_id"),
        question=asked.rpartition(_POST_PROMPT)[0] or asked if isinstance(asked, str) else None,
        answers=row.texts("target"),
        prediction=_first(row, row.value("filtered_resps")),
        image="",
    )


def _of_vlmevalkit(row: Row) -> Sample:
    return Sample(
        item_id=row.text("index"),
        question=row.text_or_none("question"),
        answers=row.texts("answer") if "answer" in row.values else (),
        prediction=row.text_or_none("prediction"),
        image=row.text_or_empty("image_path") if "image_path" in row.values else "",
    )


def _first(row: Row, said: object) -> str | None:
    """The reply, which earlier versions keep in a list of one, and some tasks in a list in it."""
    while isinstance(said, list) and len(said) == 1:
        said = said[0]
    if said is None or isinstance(said, str):
        return said
    raise UserError(f"{row.where}: 'filtered_resps' should be one text, but is {str(said)[:60]}")
