"""Prints the results of commands on a console.

Report and planning are loaded only if needed.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from parityalign import planning, report
from parityalign.cli.tables import counted, show_table, table
from parityalign.core import CONTROLS, PREVIEW, REPORT, SCORES, Controls, Scores

if TYPE_CHECKING:
    from parityalign import engines, pipeline
    from parityalign.pipeline import Outcome


def show_outcomes(console: Console, outcomes: "Sequence[Outcome]") -> None:
    """Prints what was done in each stage, and why."""
    for outcome in outcomes:
        _say(console, f"{outcome.stage}: {outcome.why} ({counted(outcome.counts)})")
        if outcome.note:
            _say(console, f"  {outcome.note}")


def show_result(console: Console, run: Path, tasks: Sequence[str]) -> None:
    """Prints the results of a whole run: verdicts, scores and controls, if there are any.

    Args:
        console: The console.
        run: The run folder.
        tasks: The tasks, in the order in which they are shown.
    """
    _show_verdicts(console, run, tasks)
    scores = report.read_record(run / SCORES, Scores)
    console.print()
    if scores and scores.tasks:
        _show_scores(console, scores)
    else:
        console.print("No task of this run has a test split, so there are no scores.")
    if scores:
        _show_held_out(console, scores)
    if controls := report.read_record(run / CONTROLS, Controls):
        compared = report.control_table(controls)
        console.print()
        console.print(table(compared.headings, compared.rows, texts=2))
        _say(console, compared.precision)
    _say(console, f"report: {run / REPORT}")


def show_steps(console: Console, steps: "Sequence[pipeline.Step]") -> None:
    """Prints what a run would do."""
    rows = [[step.stage, step.why, _asked_in(step)] for step in steps]
    show_table(console, "", ["stage", "done", "questions"], rows, texts=3)


def _asked_in(step: "pipeline.Step") -> str:
    if step.questions is None:
        return f"at most {step.at_most:,}" if step.at_most else ""
    return f"{step.questions:,} to {step.model}" if step.questions else "none"


def show_status(console: Console, found: "Sequence[pipeline.StageStatus]") -> None:
    """Prints how far a run is."""
    rows = [
        [
            each.stage,
            f"{each.state}: {each.why}" if each.why else each.state,
            counted(each.counts),
            f"{each.asked:,}",
            "" if each.seconds is None else f"{each.seconds:,.1f} s",
        ]
        for each in found
    ]
    show_table(console, "", ["stage", "state", "counts", "asked", "took"], rows, texts=3)


def show_preview(console: Console, found: "Sequence[report.Preview]", run: Path) -> None:
    """Prints the pairs of a preview, and where the page with their pictures is."""
    rows = [
        [
            each.image.name,
            each.pair.question if each.pair else "",
            each.pair.answer if each.pair else "",
            (each.verdict.student_text if each.verdict else "") or "",
            each.outcome,
        ]
        for each in found
    ]
    show_table(console, "", ["image", "question", "answer", "student", "outcome"], rows, texts=5)
    _say(console, f"with pictures: {run / PREVIEW}")


def show_holdings(console: Console, held: "Sequence[engines.Holding]", path: Path | None) -> None:
    """Prints what an answer store holds."""
    rows = [[each.model, *(f"{count:,}" for count in each[1:])] for each in held]
    show_table(console, "", ["model", "answers", "signals", "in no artifact", "bytes"], rows, texts=1)
    if path is not None:
        _say(console, f"{path}: {path.stat().st_size:,} bytes")


def show_projection(console: Console, found: "planning.Projection") -> None:
    """Prints a plan, and below it the assumptions."""
    console.print(table(planning.PROJECTION_HEADINGS, found.table(), texts=2))
    console.print("", *found.lines(), sep="\n", soft_wrap=True)


def show_tables(console: Console, tables: "Iterable[report.Table]") -> None:
    """Prints tables with their captions above."""
    for told in tables:
        show_table(console, told.caption, told.headings, told.rows, texts=told.words)


def _show_verdicts(console: Console, run: Path, tasks: Sequence[str]) -> None:
    verdicts = report.verdicts_by_task(run, tasks)
    kinds = list(next(iter(verdicts.values()), {}))
    rows = [[task, *(f"{counts[kind]:,}" for kind in kinds)] for task, counts in verdicts.items()]
    console.print()
    console.print(table(["pairs", *(report.VERDICT_WORDS[kind] for kind in kinds)], rows))


def _show_scores(console: Console, scores: "Scores") -> None:
    console.print(table(report.SCORE_HEADINGS, report.score_table(scores), texts=2))
    tables = (
        (report.PART_HEADINGS, report.part_table(scores), 1),
        (report.COVERAGE_HEADINGS, report.coverage_table(scores), 2),
        (report.FORGOTTEN_HEADINGS, report.forgotten_table(scores.forgotten), 1),
    )
    for headings, rows, texts in tables:
        if rows:
            console.print()
            console.print(table(headings, rows, texts=texts))
    _say(console, f"\n{report.headline(scores)}")


def _show_held_out(console: Console, scores: "Scores") -> None:
    """Prints what needs no labels: the pairs on held-out images, and the speed."""
    rows = report.held_out_table(scores.held_out)
    if rows:
        console.print()
        console.print(table(report.HELD_OUT_HEADINGS, rows, texts=1))
    for line in (report.held_out_line(scores.held_out), report.speed_line(scores.speed)):
        if line:
            _say(console, line)


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True)
