"""Reads benchmark files as they were released; what is no such file is refused in words that say why.

Unknown keys are ignored: every release has some. Ids may be numbers or texts.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parityalign.errors import UserError
from parityalign.records import Question

_SHOWN = 3
"""How many offenders a message names; the rest is counted."""
_SURROGATE = re.compile("[\ud800-\udfff]")  # legal in JSON escapes, but in no prompt and no file name


@dataclass(frozen=True)
class Row:
    """One object of a benchmark's file."""

    where: str
    """File and place, for messages."""
    values: Mapping[str, object]

    def text(self, key: str) -> str:
        """The text, or number as text, under a key.

        Raises:
            UserError: The key is missing, null or holds something else.
        """
        return _as_text(self._value(key), f"{self.where}: {key!r}")

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts of the list under a key, at least one.

        Raises:
            UserError: There is no such list, it is empty or holds something else.
        """
        return tuple(_as_text(value, f"{self.where}: {key!r}") for value in self._list(key))

    def rows(self, key: str) -> list["Row"]:
        """The objects of the list under a key, at least one.

        Raises:
            UserError: There is no such list, it is empty or holds something else.
        """
        return _as_rows(self._list(key), f"{self.where}: {key!r}")

    def _list(self, key: str) -> list[object]:
        value = self._value(key)
        if not isinstance(value, list) or not value:
            raise UserError(f"{self.where}: {key!r} should be a list of one or more, but is {_shown(value)}")
        return value

    def _value(self, key: str) -> object:
        if key not in self.values:
            raise UserError(f"{self.where} has no {key!r}; its keys are {_names(self.values)}")
        if self.values[key] is None:
            raise UserError(f"{self.where}: {key!r} is null; a labelled split is needed to score answers")
        return self.values[key]


def read_rows(path: Path, key: str | None) -> list[Row]:
    """The rows of a benchmark's file: the list under `key`, or the file itself where `key` is None.

    Raises:
        UserError: The file is missing or empty, is no JSON or is JSON of another kind.
    """
    content = _read_json(path)
    rows = content
    if key is not None:
        rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        expected = f"an object with a list under {key!r}" if key else "a list of rows"
        raise UserError(f"{path}: expected {expected}, found {_kind(content)}")
    if not rows:
        raise UserError(f"{path}: the split is empty; take the file of the whole release")
    return _as_rows(rows, f"{path}, {key}" if key else str(path))


def by_id(rows: Sequence[Row], key: str) -> dict[str, Row]:
    """The rows by the id under a key.

    Raises:
        UserError: An id is given twice.
    """
    ids = [row.text(key) for row in rows]
    _refuse_repeated(ids, rows[0].where)
    return dict(zip(ids, rows, strict=True))


def checked(questions: Sequence[Question], folder: Path) -> list[Question]:
    """The questions of a test split, after a look at what only the whole split can show.

    Raises:
        UserError: Ids are repeated, or images are missing.
    """
    _refuse_repeated([question.question_id for question in questions], str(folder))
    images = sorted({question.image for question in questions})
    missing = [image for image in images if not Path(image).is_file()]
    _refuse(f"{folder}: images of questions that are missing", missing)
    return list(questions)


def _refuse_repeated(ids: Sequence[str], where: str) -> None:
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    _refuse(f"{where}: ids that are given to more than one question", repeated)


def _refuse(what: str, offenders: Sequence[str]) -> None:
    if offenders:
        rest = f" and {len(offenders) - _SHOWN} more" if len(offenders) > _SHOWN else ""
        raise UserError(f"{what}: {', '.join(offenders[:_SHOWN])}{rest}")


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except OSError as problem:
        raise UserError(
            f"cannot read {path}: {problem.strerror}.\n"
            "The test folder must hold the benchmark's files under the names of their release."
        ) from problem
    except (ValueError, RecursionError) as problem:  # broken JSON, broken UTF-8, absurd nesting
        raise UserError(f"{path} is not JSON: {problem}") from problem


def _as_rows(values: Sequence[object], where: str) -> list[Row]:
    rows = []
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise UserError(f"{where}[{number}] should be an object, but is {_shown(value)}")
        rows.append(Row(f"{where}[{number}]", value))
    return rows


def _as_text(value: object, where: str) -> str:
    if isinstance(value, str) and not _SURROGATE.search(value):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{where} should be a text, but holds {_shown(value)}")


def _kind(content: object) -> str:
    """What a JSON file holds, in words."""
    if isinstance(content, dict):
        return f"an object with the keys {_names(content)}"
    return f"a list of {len(content)}" if isinstance(content, list) else _shown(content)


def _names(values: Mapping[str, object]) -> str:
    return ", ".join(map(repr, values)) or "none"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
