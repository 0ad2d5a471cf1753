"""Reads pairs made by other tools, in these formats:

pairs           JSON lines {"pair_id": "7", "image": "a.png", "question": "What is sold?", "answer": "tea"}
sharegpt        {"id": "7", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nWhat ..."},
                {"from": "gpt", "value": "tea"}]}, as one JSON list or as JSON lines
first-release   the PA output of the method's first release, or its predictions; see `mpa_release.py`
parquet         a file with these columns, or with others given by name
"""

import hashlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from parityalign.core import (
    Record,
    Row,
    UserError,
    as_rows,
    content_id,
    did_you_mean,
    given_lines,
    missing_package,
    open_given,
    quoted_names,
    read_lines,
    read_rows,
)
from parityalign.data.mpa_release import kind_of_item, read_item

KEYS = ("pair_id", "image", "question", "answer")
PARQUET = "parquet"
_CONVERSATION = "conversations"
_IMAGE_MARKS = ("<image>\n", "\n<image>", "<image>")


class GivenPair(Record):
    """A pair from another tool."""

    pair_id: str
    where: str
    """File and place, for messages."""
    question: str | None
    answer: str | None


def read_given_pairs(path: Path, *, task: str, form: str | None, columns: Mapping[str, str]) -> Iterator[GivenPair]:
    """The pairs of a file, in its order.

    A pair without an id gets the one of our records, with no teacher: `content_id(image, task, question, answer, "")`,
    with the image as it is in the file (for image bytes: the first 32 digits of their SHA-256).

    Args:
        path: The file.
        task: The task that the pairs belong to.
        form: One of the names above; None: detected from the suffix `.parquet` and the keys of the first row.
        columns: The Parquet file's own names for `pair_id`, `image`, `question` and `answer`.

    Raises:
        UserError: The file is missing or holds something else, or lacks a named column.
    """
    if form not in (None, *FORMS):
        raise UserError(f"there is no form of pairs {form!r}. {did_you_mean(str(form), list(FORMS))}")
    if (form or path.suffix.removeprefix(".")) == PARQUET:
        rows = _parquet_rows(path, columns)
    elif columns:
        raise UserError(f"columns can be named for Parquet files only, and {path} is read as {form or 'JSON'}")
    else:
        rows = iter(json_rows(path, _EXPECTED))
    row = None
    for row in rows:
        yield from FORMS[form or _form_of(row, path)](row, task)
    if row is None:
        raise UserError(f"{path} is empty; expected {_EXPECTED}")


def json_rows(path: Path, expected: str) -> list[Row]:
    """The rows of one JSON list or of JSON lines, detected by the first non-blank character; none of an empty file.

    Raises:
        UserError: The file is missing or something else; the message names what was `expected`.
    """
    try:
        first = next((line.removeprefix(BOM_UTF8).lstrip()[:1] for _, line in given_lines(path)), b"")
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}; give a file of {expected}") from problem
    if not first:
        return []
    return read_rows(path) if first == b"[" else read_lines(path)


def _form_of(row: Row, path: Path) -> str:
    if path.suffix == f".{PARQUET}":
        return PARQUET
    if _CONVERSATION in row.values:
        return "sharegpt"
    if kind_of_item(row.values):
        return "first-release"
    if "question" in row.values or "pair_id" in row.values:
        return "pairs"
    raise UserError(f"{row.where} is not a pair: expected {_EXPECTED}; found the keys {quoted_names(row.values)}")


def _plain(row: Row, task: str) -> Iterator[GivenPair]:
    question, answer = row.text_or_none("question"), row.text_or_none("answer")
    image = row.text_or_none("image") or ""
    pair_id = row.text("pair_id") if "pair_id" in row.values else None
    yield _given(row, pair_id or content_id(image, task, question or "", answer or "", ""), question, answer)


def _column_pair(row: Row, task: str) -> Iterator[GivenPair]:
    image = row.values.get("image")
    if isinstance(image, Mapping):  # as the `datasets` library keeps images
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        image = hashlib.sha256(image).hexdigest()[:32]
    yield from _plain(Row(row.where, {**row.values, "image": image}, row.place), task)


def _first_release(row: Row, _: str) -> Iterator[GivenPair]:
    """A row of the first release; it has an id of its own, so the task is not needed."""
    item = read_item(row)
    yield _given(row, item.item_id, item.question, item.answer)


def _conversation(row: Row, task: str) -> Iterator[GivenPair]:
    """One pair for every question with an answer after it; if there are several, their number is appended to the id."""
    turns = [turn for turn in row.rows(_CONVERSATION) if turn.values.get("from") != "system"]
    speakers = [turn.text("from") for turn in turns]
    if not turns or speakers != ["human", "gpt"] * (len(turns) // 2):
        raise UserError(f"{row.where}: the turns should be human and gpt in turn, but are {quoted_names(speakers)}")
    image = row.text_or_none("image") if "image" in row.values else None
    own_id = row.text_or_none("id") if "id" in row.values else None
    for number, (asked, said) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
        question, answer = _without_mark(asked.text_or_none("value")), said.text_or_none("value")
        pair_id = own_id if own_id is None or len(turns) == 2 else f"{own_id}:{number}"
        yield _given(row, pair_id or content_id(image or "", task, question or "", answer or "", ""), question, answer)


def _without_mark(text: str | None) -> str | None:
    for mark in _IMAGE_MARKS:
        text = text and text.removeprefix(mark).removesuffix(mark)
    return text


def _given(row: Row, pair_id: str, question: str | None, answer: str | None) -> GivenPair:
    return GivenPair(pair_id=pair_id, where=row.where, question=question, answer=answer)


def _parquet_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """The rows under our column names; images are read only if an id has to be made from them."""
    file = _parquet_file(path)
    found = file.schema_arrow.names
    unknown = [name for name in columns if name not in KEYS]
    if unknown:
        raise UserError(f"there is no column {unknown[0]!r} to map. {did_you_mean(unknown[0], list(KEYS))}")
    named = {key: columns.get(key, key) for key in KEYS if key in columns or key in found}
    missing = [named.get(key, key) for key in ("question", "answer", *columns) if named.get(key, key) not in found]
    if missing:
        raise UserError(
            f"{path} has no column {missing[0]!r}; it has {quoted_names(found)}.\n"
            "Map its columns: --columns question=COLUMN,answer=COLUMN,pair_id=COLUMN"
        )
    if "pair_id" in named:
        named.pop("image", None)
    batches = file.iter_batches(batch_size=1000, columns=list(named.values()))
    with _readable(path):
        yield from _renamed(batches, named, path)


def _renamed(batches: Iterable[Any], named: Mapping[str, str], path: Path) -> Iterator[Row]:
    place = 0
    for batch in batches:
        for row in as_rows(batch.to_pylist(), str(path)):
            yield Row(f"{path}, row {place}", {key: row.values[name] for key, name in named.items()}, place)
            place += 1


def _parquet_file(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    try:
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as problem:
        raise missing_package("reading Parquet", "pyarrow", "'parityalign[datasets]'") from problem
    with _readable(path):
        open_given(path).close()  # no pipe
        return pyarrow.parquet.ParquetFile(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow  # noqa: PLC0415

    try:
        yield
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror or problem}") from problem
    except (pyarrow.ArrowException, ValueError) as problem:  # ValueError: a text in it is not UTF-8
        raise UserError(f"{path} is not a Parquet file, or is damaged: {problem}") from problem


FORMS: Mapping[str, Callable[[Row, str], Iterator[GivenPair]]] = MappingProxyType(
    {"pairs": _plain, "sharegpt": _conversation, "first-release": _first_release, PARQUET: _column_pair}
)
_EXPECTED = (
    "rows with pair_id, image, question, answer (pair_id may be left out); with id, image, conversations; "
    "or of the first release's PA output"
)
