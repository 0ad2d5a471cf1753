"""Rows of tables of pairs (CSV, workbooks, Parquet), and of JSON under names of its own, under our names of columns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parityalign.config import PAIR_COLUMNS
from parityalign.core import Row, UserError, as_rows, did_you_mean, quoted_names
from parityalign.data._parquet import open_parquet, readable_parquet
from parityalign.data._tables import WORKBOOK, table_lines, table_rows

PARQUET = "parquet"
CSV = "csv"
TABLE_SUFFIXES = {".parquet": PARQUET, ".csv": CSV, ".tsv": CSV, WORKBOOK: CSV}
NEEDED = ("question", "answer")


def refuse_unknown_columns(columns: Mapping[str, str]) -> None:
    """Refuses to map what is no column of pairs.

    Raises:
        UserError: Names the near ones.
    """
    unknown = [name for name in columns if name not in PAIR_COLUMNS]
    if unknown:
        raise UserError(f"there is no column {unknown[0]!r} to map. {did_you_mean(unknown[0], PAIR_COLUMNS)}")


def renamed(row: Row, columns: Mapping[str, str], *, alone: bool = False) -> Row:
    """A row with the values of the file's own columns under our names, beside its other columns or alone.

    Raises:
        UserError: It lacks one of them.
    """
    named = {key: row.value(name) for key, name in columns.items()}
    return Row(row.where, named if alone else {**row.values, **named}, row.place)


def pair_rows(path: Path, columns: Mapping[str, str], needed: Sequence[str] = NEEDED) -> Iterator[Row]:
    """The rows of a CSV file with a header, one with tabs (`.tsv`), or a workbook (`.xlsx`); empty fields are null.

    Raises:
        UserError: The file cannot be read, lacks a named or needed column, or a row has more or fewer fields than the
            header.
    """
    header = next(table_lines(path), None)
    named = _named(header.fields, columns, path, needed) if header else {}
    return (renamed(row, named, alone=True) for row in table_rows(path))


def parquet_rows(
    path: Path, columns: Mapping[str, str], needed: Sequence[str] = NEEDED, *, pictures: bool
) -> Iterator[Row]:
    """The rows of a Parquet file.

    Args:
        path: The file.
        columns: Its own names.
        needed: The columns that it has to have.
        pictures: Whether the images are read even where no id has to be made of them.
    """
    file = open_parquet(path)
    named = _named(file.schema_arrow.names, columns, path, needed)
    if "pair_id" in named and not pictures:
        named.pop("image", None)
    batches = file.iter_batches(batch_size=64 if pictures else 1000, columns=list(named.values()))
    with readable_parquet(path):
        yield from _renamed_batches(batches, named, path)


def count_rows(path: Path) -> int:
    """How many rows a Parquet file has."""
    return int(open_parquet(path).metadata.num_rows)


def named_images(path: Path, columns: Mapping[str, str]) -> Iterator[str]:
    """The paths in a Parquet file's column of images; none where the images are in it."""
    file = open_parquet(path)
    import pyarrow.types as kinds  # noqa: PLC0415

    name = columns.get("image", "image")
    if name not in file.schema_arrow.names:
        return
    kind = file.schema_arrow.field(name).type
    if not (kinds.is_string(kind) or kinds.is_large_string(kind)):
        return
    with readable_parquet(path):
        for batch in file.iter_batches(columns=[name]):
            yield from filter(None, batch.column(0).to_pylist())


def _named(found: Iterable[str], columns: Mapping[str, str], path: Path, needed: Sequence[str]) -> dict[str, str]:
    """The file's names by ours, of the columns that it has."""
    found = [*found]
    named = {key: columns.get(key, key) for key in PAIR_COLUMNS if key in columns or key in found}
    missing = [named.get(key, key) for key in (*needed, *columns) if named.get(key, key) not in found]
    if missing:
        raise UserError(
            f"{path} has no column {missing[0]!r}; it has {quoted_names(found)}.\n"
            "Map its columns: --columns question=COLUMN,answer=COLUMN,pair_id=COLUMN (in RUN.yaml: columns: "
            "{question: COLUMN, answer: COLUMN, image: COLUMN})"
        )
    return named


def _renamed_batches(batches: Iterable[Any], named: Mapping[str, str], path: Path) -> Iterator[Row]:
    place = 0
    for batch in batches:
        for row in as_rows(batch.to_pylist(), str(path)):
            yield Row(f"{path}, row {place}", {key: row.values[name] for key, name in named.items()}, place)
            place += 1
