"""Scores predictions that were made anywhere, from a file of JSON lines such as

    {"prediction": "coca cola", "answers": ["Coca-Cola", "coke"]}

Other fields are allowed and copied to the output, so that a score can be joined with its question.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from parityalign.core import Metric, UserError, bounded_lines, is_too_deep
from parityalign.metrics._find import find_metric

_EXPECTED = 'each line must be like {"prediction": "a text", "answers": ["a text", "another"]}'


def score_file(metric_name: str, path: Path) -> Iterator[dict[str, Any]]:
    """One row per case, in order: the case's own fields, then `score` (0 to 1), `compared` and `why`.

    The file is streamed, blank lines are skipped, and a prediction of null is scored as an empty text.
    The metric, the file and its first case are checked at once, the other lines as they come.

    Raises:
        UserError: the metric is unknown, the file cannot be read or is empty, or a line is not a case (the message
            has its number and what was found there).
    """
    rows = _rows(find_metric(metric_name), path)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path} is empty; {_EXPECTED}")
    return chain([first], rows)


def _rows(metric: Metric, path: Path) -> Iterator[dict[str, Any]]:
    for where, line in _lines(path):
        case = _read_case(line, where)
        value, compared, why = metric.score(case["prediction"] or "", case["answers"])
        yield {**case, "score": value, "compared": compared, "why": why}


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines that are not blank, each with its place for messages."""
    try:
        with path.open("rb") as file:  # a pipe too: `parityalign score anls <(jq ...)`
            for number, line in bounded_lines(file, path):
                yield f"line {number} of {path}", line.rstrip()
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}; give a file of JSON lines, {_EXPECTED}") from problem


def _read_case(line: bytes, where: str) -> dict[str, Any]:
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
    _check_case(case, where)
    return case


def _check_case(case: Mapping[str, Any], where: str) -> None:
    missing = [key for key in ("prediction", "answers") if key not in case]
    if missing:
        raise UserError(
            f"{where} has no {' and no '.join(missing)} among its fields {_shown(sorted(case))}; {_EXPECTED}"
        )
    prediction, answers = case["prediction"], case["answers"]
    if not isinstance(prediction, str | None):
        raise UserError(f"{where}: prediction is {_shown(prediction)}; it must be a text or null")
    if not isinstance(answers, list) or not answers:
        raise UserError(f"{where}: answers is {_shown(answers)}; it must be a list of one text or more")
    for answer in answers:
        if not isinstance(answer, str):
            raise UserError(f"{where}: answers contains {_shown(answer)}; every answer must be a text")


def _shown(value: object) -> str:
    """The value as it is in the file, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."
