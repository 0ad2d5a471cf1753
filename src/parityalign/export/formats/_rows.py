"""Shared by the formats: rows of pairs, the columns of a verdict, and JSON files written row by row."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from parityalign.core import Exportable, ExportedPair, writing

Row = Mapping[str, Any]
IMAGE_MARK = "<image>\n"
"""Placeholder of the image in a user's turn; the texts of a pair hold no second one."""


def rows_of(run: Exportable, out: Path, row: Callable[[ExportedPair, str], Row]) -> Iterator[Row]:
    """A row of each pair and the name of its picture, which is copied into the folder unless it stays where it lies."""
    return (row(judged, run.picture(judged.pair, out)) for judged in run.judged())


def verdict_columns(judged: ExportedPair) -> dict[str, Any]:
    """The columns of a row besides question and answer. Trainers ignore columns that they do not know."""
    return {
        "task": judged.pair.task,
        **judged.verdict.model_dump(mode="json", exclude={"pair_id"}),
    }


def write_lines(path: Path, rows: Iterable[Row]) -> int:
    """Writes JSON lines; returns how many."""
    return _write(path, rows, between="\n", around=("", "\n"))


def write_list(path: Path, rows: Iterable[Row]) -> int:
    """Writes one JSON list with one row per line; returns how many."""
    return _write(path, rows, between=",\n", around=("[\n", "\n]\n"))


def _write(path: Path, rows: Iterable[Row], *, between: str, around: tuple[str, str]) -> int:
    count = 0
    with writing(path), path.open("w", encoding="utf-8") as file:
        file.write(around[0])
        for row in rows:
            file.write((between if count else "") + json.dumps(row, ensure_ascii=False))
            count += 1
        file.write(around[1])
    return count
