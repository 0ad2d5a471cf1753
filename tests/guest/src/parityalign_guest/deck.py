"""A benchmark: labelled cards in a folder with `deck.csv`, whose lines are such as

image,question,answer
red.png,What colour is the card?,red
"""

import csv
from pathlib import Path

from parityalign.core import Benchmark, Question, Row, UserError


def read_test(folder: Path) -> list[Question]:
    """The labelled questions of a folder.

    Raises:
        UserError: The file is missing or lacks a column.
    """
    path = folder / "deck.csv"
    if not path.is_file():
        raise UserError(f"{folder} has no deck.csv; it says what is asked about each card")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [Row(f"{path}, card {place + 1}", card, place) for place, card in enumerate(csv.DictReader(file))]
    return [
        Question(
            question_id=row.text("image"),
            image=str(folder / row.text("image")),
            question=row.text_or_empty("question"),
            answers=row.texts("answer"),
        )
        for row in rows
    ]


BENCHMARK = Benchmark("deck", skill="colours", read_test=read_test)
