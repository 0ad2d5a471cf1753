"""Scores for existing predictions: a file in, scores out, no model is loaded; `data/predictions.py` has the forms."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from parityalign.core import Metric, UserError
from parityalign.data import Case, read_cases
from parityalign.metrics import find_metric

_NO_COLUMNS: Mapping[str, str] = MappingProxyType({})


def score_file(metric_name: str, path: Path, columns: Mapping[str, str] = _NO_COLUMNS) -> Iterator[dict[str, Any]]:
    """One row per case, in order: the case's own fields, then `score` (0 to 1), `compared` and `why`.

    The file is streamed, blank lines are skipped, and a prediction of null is scored as an empty text.
    The metric, the file and its first case are checked at once, the other lines as they come.

    Args:
        metric_name: The metric.
        path: The file.
        columns: Its own names for `prediction`, `answers` and `exact`, where they are others.

    Raises:
        UserError: The metric is unknown, the file cannot be read or is empty, or a line is not a case (the message
            has its number and what was found there).
    """
    metric = find_metric(metric_name)
    rows = (_scored(metric, case) for case in read_cases(path, columns))
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path} is empty; give a file of predictions with their answers")
    return chain([first], rows)


def _scored(metric: Metric, case: Case) -> dict[str, Any]:
    if case.evaluator and metric.with_exact:
        raise UserError(
            f"{case.where}: {metric.name} needs to know which answers have to be met exactly, which a row of "
            f"{case.evaluator} does not tell; give lines with prediction, answers and exact"
        )
    value, compared, why = metric.on_question(case.prediction, case.answers, case.exact)
    return {**case.row, "score": value, "compared": compared, "why": why}
