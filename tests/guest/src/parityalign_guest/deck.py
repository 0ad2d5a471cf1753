"""A benchmark: labelled cards in a folder with `deck.csv`, whose lines are such as

image,question,answer
red.png,What colour is the card?,red
"""

import csv
from pathlib import Path

from parityalign.core import Benchmark, Question


def read_test(folder: Path) -> list[Question]:
    """The labelled questions of a folder."""
    with (folder / "deck.csv").open(encoding="utf-8", newline="") as file:
        return [
            Question(
                question_id=row["image"],
                image=str(folder / row["image"]),
                question=row["question"],
                answers=(row["answer"],),
            )
            for row in csv.DictReader(file)
        ]


BENCHMARK = Benchmark("deck", skill="colours", read_test=read_test)
