"""Rows of files from other sources: every value is checked before use, and an error says what is wrong with it.

Unknown keys are ignored, since every release has some. Ids may be numbers or texts. A number is the text that the
file spells it with (3.10 is not 3.1); in a column of floats, which spells nothing, 12.0 is 12 and NaN is null.
"""

import ast
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from parityalign.core.errors import UserError
from parityalign.core.given_files import MAX_TABLE_BYTES, given_lines, read_given

_SHOWN = 3
"""How many offenders a message names; the others are counted."""
MAX_DEPTH = 64
"""How deep lists and objects may lie in one another; no release comes near it."""
_SURROGATE = re.compile("[\ud800-\udfff]")  # legal in JSON escapes, but in no prompt and no file name
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_LIST_OF_QUOTED = re.compile(rf"\[\s*(?:(?:{_QUOTED.pattern})(?:[\s,]+(?:{_QUOTED.pattern}))*[\s,]*)?\]", re.DOTALL)
_LONGEST_LIST = 100_000
"""Characters of a text that may be the text of a list of answers."""


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
        return None if _is_null(value) else _as_text(value, f"{self.where}: {key!r}")

    def text_or_empty(self, key: str) -> str:
        """Like `text`, but null gives an empty text; the caller reports what it leaves out for that.

        Raises:
            UserError: The key is missing or holds something else.
        """
        return self.text_or_none(key) or ""

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts of the list under a key; a lone text stands for a list of one.

        Empty if the list is null, empty, or has a null in it. Some copies keep the list as one text, as Python or JSON
        writes it: "['stop', 'Stop sign']" is the same two texts. A list without quotation marks, "[2010, 2014]", is the
        answer that it is in ChartQA.

        Raises:
            UserError: The key is missing or holds something else.
        """
        texts = self.plain_texts(key)
        written = _written_list(texts[0]) if len(texts) == 1 else None
        return texts if written is None else tuple(_as_text(item, f"{self.where}: {key!r}") for item in written)

    def plain_texts(self, key: str) -> tuple[str, ...]:
        """Like `texts`, but a list that is written as one text stays the one text, which is an answer of its own.

        Raises:
            UserError: The key is missing or holds something else.
        """
        value = self.value(key)
        values = [value] if isinstance(value, str | int | float | Decimal) else self._list(key)
        if any(map(_is_null, values)):
            return ()
        return tuple(_as_text(item, f"{self.where}: {key!r}") for item in values)

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
    try:
        content = read_given(path, MAX_TABLE_BYTES)
    except (OSError, ValueError) as problem:
        raise _unreadable(path, problem) from problem
    return parse_json(content, str(path))


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
        raise UserError(f"{path} is empty: it has no rows")
    return as_rows(rows, f"{path}, {key}" if key else str(path))


def read_lines(path: Path) -> list[Row]:
    """The rows of a JSON Lines file; blank lines are skipped.

    Raises:
        UserError: The file is missing or empty, or a line is not a JSON object.
    """
    try:
        rows = [
            _as_row(parse_json(line, f"{path}, line {number}"), f"{path}, line {number}", place)
            for place, (number, line) in enumerate(given_lines(path))
        ]
    except (OSError, ValueError) as problem:
        raise _unreadable(path, problem) from problem
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


def parse_json(text: bytes | str, where: str, *, spelling: bool = True) -> object:
    """The value that a JSON text says.

    Args:
        text: The text; bytes may begin with a byte order mark.
        where: File and place, for messages.
        spelling: Whether numbers with a point or an exponent become the texts that they are written as.

    Raises:
        UserError: It is not JSON, or is nested too deeply.
    """
    try:
        value = json.loads(text, parse_float=str if spelling else None)
    except (ValueError, RecursionError) as problem:  # broken JSON, broken UTF-8, absurd nesting
        raise UserError(f"{where} is not JSON: {problem}") from problem
    if is_too_deep(value):
        raise UserError(f"{where} is nested more than {MAX_DEPTH} deep, which no row of ours is")
    return value


def is_too_deep(value: object) -> bool:
    """Whether lists and objects lie deeper in one another than can be written and shown without care."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for outer in level for item in _items(outer) if isinstance(item, list | dict)]
        if not level:
            return False
    return True


def _items(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _unreadable(path: Path, problem: Exception) -> UserError:
    said = getattr(problem, "strerror", None) or problem
    return UserError(f"cannot read {path}: {said}.")


def _as_row(value: object, where: str, place: int) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where} should be an object, but is {_shown(value)}")
    return Row(where, value, place)


def _is_null(value: object) -> bool:
    """Whether a value is null, or what stands for it in a column of floats."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _as_text(value: object, where: str) -> str:
    if isinstance(value, str) and not _SURROGATE.search(value):
        return value
    if isinstance(value, float) and value.is_integer():  # ids and prices beside a null become floats in many tables
        return str(int(value))
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{where} should be a text, but holds {_shown(value)}")


def _written_list(text: str) -> tuple[str, ...] | None:
    """The texts of a list that is written as one text; None if it is a text like any other."""
    if len(text) > _LONGEST_LIST or not _LIST_OF_QUOTED.fullmatch(text.strip()):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        # Text by text: Python would join 'a' 'b', as NumPy writes an array, to one.
        found = [_unquoted(quoted) for quoted in _QUOTED.findall(text)]
    return tuple(found)


def _unquoted(quoted: str) -> str:
    try:
        with warnings.catch_warnings(action="ignore"):  # of backslashes, from Python 3.12 on
            return str(ast.literal_eval(quoted))
    except (ValueError, SyntaxError):  # a line end or a broken escape in it
        return quoted[1:-1]


def _kind(content: object) -> str:
    """What a JSON file holds, in words."""
    if isinstance(content, dict):
        return f"an object with the keys {quoted_names(content)}"
    return f"a list of {len(content)}" if isinstance(content, list) else _shown(content)


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, default=repr)
    except (ValueError, TypeError, RecursionError):  # keys that are no texts, a table's value inside itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
