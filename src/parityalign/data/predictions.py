"""Predictions that were made anywhere, with their references, for scoring:

    {"prediction": "coca cola", "answers": ["Coca-Cola", "coke"]}     one a line

or a table (`.csv`, `.tsv`, `.xlsx`) with such columns, or what lmms-eval and VLMEvalKit write (`evaluators.py`). The
columns may have other names, which are given then. `exact` may say which items of the answer have to be met exactly
(`Question.exact`), as a list of booleans, or of YES and NO.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parityalign.core import Row, UserError, bounded_lines, did_you_mean, is_too_deep, quoted_names, read_rows
from parityalign.data._pair_tables import renamed
from parityalign.data._tables import is_text_table, table_rows
from parityalign.data.evaluators import evaluator_of, read_sample

COLUMNS = ("prediction", "answers", "exact")
_NEEDED = COLUMNS[:2]
_EXPECTED = 'each line must be like {"prediction": "a text", "answers": ["a text", "another"]}'
_TRUTHS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class Case(NamedTuple):
    """A prediction and what it is scored by."""

    where: str
    """File and place, for messages."""
    prediction: str
    answers: tuple[str, ...]
    exact: tuple[bool, ...]
    evaluator: str | None
    """Who wrote the row, if it is an evaluator's: it says nothing of exact answers then."""
    row: Mapping[str, Any]
    """Its fields as the file has them."""


def read_cases(path: Path, columns: Mapping[str, str]) -> Iterator[Case]:
    """The cases of a file, in its order; lines are read as they are wanted, from a pipe too.

    Args:
        path: The file.
        columns: Its own names for `prediction`, `answers` and `exact`, where they are others.

    Raises:
        UserError: The file cannot be read, or a line is no case (the message has its number and what was found there).
    """
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise UserError(f"there is no column {unknown[0]!r} to name. {did_you_mean(unknown[0], COLUMNS)}")
    if is_text_table(path):
        return (_of_table(row, columns) for row in table_rows(path))
    if path.suffix.lower() == ".json" and _is_list(path):
        return (_of_json(row, columns) for row in read_rows(path))
    return (_of_json(row, columns) for row in _lines(path))


def _of_table(row: Row, columns: Mapping[str, str]) -> Case:
    if not columns and evaluator_of(row.values):
        return _of_evaluator(row)
    named = _named(row, columns)
    exact = named.texts("exact") if "exact" in named.values else ()
    unclear = [text for text in exact if text.casefold() not in _TRUTHS]
    if unclear:
        raise UserError(f"{row.where}: exact contains {_shown(unclear[0])}; write a list of YES and NO")
    answers = named.texts("answers")
    if not answers:
        raise UserError(f"{row.where}: answers is {_shown(named.values['answers'])}; it must be one text or more")
    said = named.text_or_empty("prediction")
    return Case(row.where, said, answers, tuple(_TRUTHS[text.casefold()] for text in exact), None, row.values)


def _of_json(row: Row, columns: Mapping[str, str]) -> Case:
    if not columns and evaluator_of(row.values):
        return _of_evaluator(row)
    named = _named(row, columns)
    prediction, answers, exact = (named.values.get(key) for key in COLUMNS)
    if not isinstance(prediction, str | None):
        raise UserError(f"{row.where}: prediction is {_shown(prediction)}; it must be a text or null")
    if not isinstance(answers, list) or not answers:
        raise UserError(f"{row.where}: answers is {_shown(answers)}; it must be a list of one text or more")
    for answer in answers:
        if not isinstance(answer, str):
            raise UserError(f"{row.where}: answers contains {_shown(answer)}; every answer must be a text")
    if exact is not None and not (isinstance(exact, list) and all(isinstance(each, bool) for each in exact)):
        raise UserError(f"{row.where}: exact is {_shown(exact)}; it must be a list of true and false")
    return Case(row.where, prediction or "", tuple(answers), tuple(exact or ()), None, row.values)


def _of_evaluator(row: Row) -> Case:
    sample = read_sample(row)
    if not sample.answers:
        raise UserError(f"{row.where} has no answers, which a score needs; its keys are {quoted_names(row.values)}")
    evaluator = evaluator_of(row.values)
    return Case(row.where, sample.prediction or "", sample.answers, (), evaluator, row.values)


def _named(row: Row, columns: Mapping[str, str]) -> Row:
    """The row under our names.

    Raises:
        UserError: It lacks a column that is named or needed.
    """
    missing = [columns.get(key, key) for key in (*_NEEDED, *columns) if columns.get(key, key) not in row.values]
    if missing:
        raise UserError(
            f"{row.where} has no {' and no '.join(dict.fromkeys(missing))} among its fields "
            f"{_shown(sorted(row.values))}; {_EXPECTED}, or name its columns: --columns prediction=NAME,answers=NAME"
        )
    return renamed(row, columns)


def _is_list(path: Path) -> bool:
    """Whether a file is one JSON list, and not lines."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).removeprefix(BOM_UTF8).lstrip()[:1] == b"["


def _lines(path: Path) -> Iterator[Row]:
    try:
        with path.open("rb") as file:  # a pipe too: `parityalign score anls <(jq ...)`
            for place, (number, line) in enumerate(bounded_lines(file, path)):
                where = f"line {number} of {path}"
                yield Row(where, _read_line(line.rstrip(), where), place)
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}; give a file of JSON lines, {_EXPECTED}") from problem


def _read_line(line: bytes, where: str) -> dict[str, object]:
    try:
        case = json.loads(line)
    except json.JSONDecodeError as problem:
        raise UserError(f"{where} is not JSON: {problem.msg} at column {problem.colno}; {_EXPECTED}") from problem
    except (ValueError, RecursionError) as problem:  # not UTF-8, a huge number, nested too deeply
        raise UserError(f"{where} cannot be read as JSON: {problem}; {_EXPECTED}") from problem
    if is_too_deep(case):
        raise UserError(f"{where} cannot be read as JSON: it is nested too deeply; {_EXPECTED}")
    if not isinstance(case, dict):
        raise UserError(f"{where} is {_shown(case)}, not an object; {_EXPECTED}")
    return case


def _shown(value: object) -> str:
    """The value as it is in the file, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."
