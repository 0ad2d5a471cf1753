"""Rows of files from other sources: every value is checked before use, and an error says what is wrong with it.

Unknown keys are ignored, since every release has some. Ids may be numbers or texts.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parityalign.core.errors import UserError

_SHOWN = 3
"""How many offenders a message names; the others are counted."""
_SURROGATE = re.compile("[\ud800-\udfff]")  # legal in JSON escapes, but in no prompt and no file name


@dataclass(frozen=True)
class Row:
    """One object of a file."""

    where: str
    """File and place, for messages."""
    values: Mapping[str, object]
    place: int = 0
    """Its index."""

    def text(self, key: str) -> str:
        """The text, or number as text, under a key.

        Raises:
            UserError: The key is missing, null or holds something else.
        """
        found = self.text_or_none(key)
        if found is None:
            raise UserError(f"{self.where}: {key!r} is null, but a text is needed")
        return found

    def text_or_none(self, key: str) -> str | None:
        """Like `text`, but null is None.

        Raises:
            UserError: The key is missing or holds something else.
        """
        value = self.value(key)
        return None if value is None else _as_text(value, f"{self.where}: {key!r}")

    def text_or_empty(self, key: str) -> str:
        """Like `text`, but null gives an empty text; the caller reports what it leaves out for that.

        Raises:
            UserError: The key is missing or holds something else.
        """
        return self.text_or_none(key) or ""

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts of the list under a key; a lone text stands for a list of one.

        Empty if the list is null, empty, or has a null in it.

        Raises:
            UserError: The key is missing or holds something else.
        """
        value = self.value(key)
        values = [value] if isinstance(value, str | int | float) else self._list(key)
        return () if None in values else tuple(_as_text(item, f"{self.where}: {key!r}") for item in values)

    def rows(self, key: str) -> list["Row"]:
        """The objects of the list under a key; none where it is null.

        Raises:
            UserError: The key is missing or holds something else.
        """
        return as_rows(self._list(key), f"{self.where}: {key!r}")

    def _list(self, key: str) -> list[object]:
        value = self.value(key)
        if value is not None and not isinstance(value, list):
            raise UserError(f"{self.where}: {key!r} should be a list, but is {_shown(value)}")
        return value or []

    def value(self, key: str) -> object:
        """The value under a key.

        Raises:
            UserError: The key is missing.
        """
        if key not in self.values:
            raise UserError(f"{self.where} has no {key!r}; its keys are {quoted_names(self.values)}")
        return self.values[key]


def read_json(path: Path) -> object:
    """What a JSON file holds.

    Raises:
        UserError: The file is missing or is not JSON.
    """
    return _parse(_read(path), str(path))


def read_rows(path: Path, key: str | None = None) -> list[Row]:
    """The rows of a JSON file: the list under `key`, or the file itself where `key` is None.

    Raises:
        UserError: The file is missing or empty, is not JSON or is JSON of another kind.
    """
    content = read_json(path)
    rows = content
    if key is not None:
        rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        expected = f"an object with a list under {key!r}" if key else "a list of rows"
        raise UserError(f"{path}: expected {expected}, found {_kind(content)}")
    if not rows:
        raise UserError(f"{path} is empty: it has no rows; take the file of the whole release")
    return as_rows(rows, f"{path}, {key}" if key else str(path))


def read_lines(path: Path) -> list[Row]:
    """The rows of a JSON Lines file; blank lines are skipped.

    Raises:
        UserError: The file is missing or empty, or a line is not a JSON object.
    """
    rows: list[Row] = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if line.strip():
            value = _parse(line, f"{path}, line {number}")
            rows.append(_as_row(value, f"{path}, line {number}", len(rows)))
    if not rows:
        raise UserError(f"{path} is empty: it has no rows")
    return rows


def as_rows(values: Iterable[object], where: str) -> list[Row]:
    """Objects as rows that know their place.

    Raises:
        UserError: One of them is not an object.
    """
    return [_as_row(value, f"{where}[{place}]", place) for place, value in enumerate(values)]


def has_keys(row: Row, keys: Iterable[str]) -> bool:
    """Whether a row has all of the keys."""
    return row.values.keys() >= set(keys)


def quoted_names(values: Iterable[str]) -> str:
    """Keys as a message shows them."""
    return ", ".join(map(repr, values)) or "none"


def first_few(offenders: Sequence[str]) -> str:
    """The first few offenders and how many more there are."""
    rest = f" and {len(offenders) - _SHOWN} more" if len(offenders) > _SHOWN else ""
    return f"{', '.join(offenders[:_SHOWN])}{rest}"


def refuse_repeated(ids: Iterable[str], where: str) -> None:
    """Checks the ids of a whole file.

    Raises:
        UserError: An id is given twice.
    """
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise UserError(f"{where}: ids that are given to more than one question: {first_few(repeated)}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise UserError(
            f"cannot read {path}: {problem.strerror}.\n"
            "docs/benchmarks.md shows which files are expected, and under which names."
        ) from problem


def _parse(text: bytes, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:  # broken JSON, broken UTF-8, absurd nesting
        raise UserError(f"{where} is not JSON: {problem}") from problem


def _as_row(value: object, where: str, place: int) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where} should be an object, but is {_shown(value)}")
    return Row(where, value, place)


def _as_text(value: object, where: str) -> str:
    if isinstance(value, str) and not _SURROGATE.search(value):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{where} should be a text, but holds {_shown(value)}")


def _kind(content: object) -> str:
    """What a JSON file holds, in words."""
    if isinstance(content, dict):
        return f"an object with the keys {quoted_names(content)}"
    return f"a list of {len(content)}" if isinstance(content, list) else _shown(content)


def _shown(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."
