"""The results of the controls, trained with as many steps: `controls.json` as a table."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from parityalign.core import Control, Controls, GapPrecision
from parityalign.report.retention import regression_cells
from parityalign.report.tables import ABSENT, estimate_cell, percent


class ControlTable(NamedTuple):
    """A table of plain text."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    worth: str
    """What of the run's gain is form and what is picking, in a sentence or two; empty if no control tells."""
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
    return ControlTable(headings, rows, " ".join(_worth(controls.controls)), _precision(controls.gap_precision))


def _row(control: Control, tasks: tuple[str, ...]) -> tuple[str, ...]:
    counts = [ABSENT if count is None else f"{count:,}" for count in (control.pairs, control.steps)]
    scores = [estimate_cell(control.tasks.get(task)) for task in tasks]
    mean = estimate_cell(control.mean)
    gain, ahead = (estimate_cell(found, signed=True) for found in (control.mean_gain, control.run_ahead))
    *_, forgotten = regression_cells(control.forgotten)
    return (control.name, control.description, *counts, *scores, mean, gain, ahead, forgotten)


def _worth(controls: Sequence[Control]) -> Iterator[str]:
    """What of the run's gain is form, what is picking."""
    known = {control.name: control for control in controls}
    form, at_random = known.get("format only"), known.get("random pairs")
    if form and form.mean_gain and form.run_ahead:
        gain = form.mean_gain.score + form.run_ahead.score
        of_form = estimate_cell(form.mean_gain, signed=True)
        yield f"Of the run's mean gain of {gain:+z.1f} points {of_form} come with the form of the answers alone."
    if at_random and at_random.run_ahead:
        ahead = estimate_cell(at_random.run_ahead, signed=True)
        yield f"To pick gaps rather than as many pairs at random makes {ahead} points."


def _precision(found: GapPrecision | None) -> str:
    if found is None or found.n == 0:
        return ""
    share = f"{percent(found.right / found.n)} of the gaps ({found.right:,} of {found.n:,})"
    return f"The answers of {share} are true of the drawn pictures."
