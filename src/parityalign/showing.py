"""What a command has found, on the console that `cli.py` hands in.

Like `pipeline.py` this module joins rooms.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from parityalign.joinery import CONTROLS, REPORT, SCORES, Outcome
from parityalign.planning.projection import HEADINGS, Projection
from parityalign.report.controls import Controls, control_table
from parityalign.report.differences import Table
from parityalign.report.files import read_record
from parityalign.report.flow import VERDICT_WORDS, verdicts_by_task
from parityalign.report.kept import FORGOTTEN_HEADINGS, forgotten_table, speed_line
from parityalign.report.tables import (
    COVERAGE_HEADINGS,
    PART_HEADINGS,
    SCORE_HEADINGS,
    Scores,
    coverage_table,
    headline,
    part_table,
    score_table,
)
from parityalign.terminal import counted, show_table, table


def show_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """What was done in each stage, and why."""
    for outcome in outcomes:
        _say(console, f"{outcome.stage}: {outcome.why} ({counted(outcome.counts)})")
        if outcome.note:
            _say(console, f"  {outcome.note}")


def show_result(console: Console, run: Path, tasks: Sequence[str]) -> None:
    """What a whole run came to: its verdicts, scores and controls, as far as there are any.

    Args:
        console: Where it is shown.
        run: The run folder.
        tasks: The tasks, in the order in which they are shown.
    """
    _show_verdicts(console, run, tasks)
    scores = read_record(run / SCORES, Scores)
    console.print()
    if scores and scores.tasks:
        _show_scores(console, scores)
    else:
        console.print("No task of this run has a test split, so there are no scores.")
    if controls := read_record(run / CONTROLS, Controls):
        compared = control_table(controls)
        console.print()
        console.print(table(compared.headings, compared.rows, texts=2))
        _say(console, compared.precision)
    _say(console, f"report: {run / REPORT}")


def show_projection(console: Console, found: Projection) -> None:
    """What a run would take, and below it what was assumed."""
    console.print(table(HEADINGS, found.table(), texts=2))
    console.print("", *found.lines(), sep="\n", markup=False, soft_wrap=True)


def show_tables(console: Console, tables: Iterable[Table]) -> None:
    """Tables below their captions."""
    for told in tables:
        show_table(console, told.caption, told.headings, told.rows, texts=told.words)


def _show_verdicts(console: Console, run: Path, tasks: Sequence[str]) -> None:
    verdicts = verdicts_by_task(run, tasks)
    kinds = list(next(iter(verdicts.values()), {}))
    rows = [[task, *(f"{counts[kind]:,}" for kind in kinds)] for task, counts in verdicts.items()]
    console.print()
    console.print(table(["pairs", *(VERDICT_WORDS[kind] for kind in kinds)], rows))


def _show_scores(console: Console, scores: Scores) -> None:
    console.print(table(SCORE_HEADINGS, score_table(scores), texts=2))
    tables = (
        (PART_HEADINGS, part_table(scores), 1),
        (COVERAGE_HEADINGS, coverage_table(scores), 2),
        (FORGOTTEN_HEADINGS, forgotten_table(scores.forgotten), 1),
    )
    for headings, rows, texts in tables:
        if rows:
            console.print()
            console.print(table(headings, rows, texts=texts))
    _say(console, f"\n{headline(scores)}")
    if said := speed_line(scores.speed):
        _say(console, said)


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)
