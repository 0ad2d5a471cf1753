"""The results of the controls, trained with as many steps: `controls.json` as a table."""

from typing import NamedTuple

from parityalign.core import Control, Controls, GapPrecision
from parityalign.report.retention import regression_cells
from parityalign.report.tables import ABSENT, estimate_cell, percent


class ControlTable(NamedTuple):
    """A table of plain text."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    precision: str
    """A sentence on how many gaps are true; empty if that was not measured."""


def control_table(controls: Controls) -> ControlTable:
    """One row per control, one column for each task that any of them was scored on."""
    tasks = tuple(dict.fromkeys(task for control in controls.controls for task in control.tasks))
    headings = (
        "control",
        "what it was trained on",
        "pairs",
        "steps",
        *tasks,
        "mean",
        "mean gain",
        "run is ahead by",
        "forgotten, %",
    )
    rows = tuple(_row(control, tasks) for control in controls.controls)
    return ControlTable(headings, rows, _precision(controls.gap_precision))


def _row(control: Control, tasks: tuple[str, ...]) -> tuple[str, ...]:
    counts = [ABSENT if count is None else f"{count:,}" for count in (control.pairs, control.steps)]
    scores = [estimate_cell(control.tasks.get(task)) for task in tasks]
    mean = estimate_cell(control.mean)
    gain, ahead = (estimate_cell(found, signed=True) for found in (control.mean_gain, control.run_ahead))
    *_, forgotten = regression_cells(control.forgotten)
    return (control.name, control.description, *counts, *scores, mean, gain, ahead, forgotten)


def _precision(found: GapPrecision | None) -> str:
    if found is None or found.n == 0:
        return ""
    share = f"{percent(found.right / found.n)} of the gaps ({found.right:,} of {found.n:,})"
    return f"The answers of {share} are true of the drawn pictures."
