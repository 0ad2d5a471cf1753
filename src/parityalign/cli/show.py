"""Prints the results of commands on a console.

Report and planning are loaded only if needed.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from parityalign import planning, report
from parityalign.cli.tables import counted, show_rows, show_table
from parityalign.core import CONTROLS, PREVIEW, SCORES, Controls, Scores

if TYPE_CHECKING:
    from parityalign import engines, pipeline
    from parityalign.pipeline import Outcome


def show_outcomes(console: Console, outcomes: "Sequence[Outcome]", *, details: bool = True) -> None:
    """Prints what was done in each stage and why; what is up to date is counted only with details."""
    for outcome in outcomes:
        told = f" ({counted(outcome.counts)})" if details or not outcome.had_nothing_to_do else ""
        _say(console, f"{outcome.stage}: {outcome.why}{told}")
        if outcome.note:
            _say(console, f"  {outcome.note}")


def show_result(console: Console, run: Path, tasks: Sequence[str], *, details: bool = False) -> None:
    """Prints the results of a whole run in five lines, and with details in tables above them.

    Args:
        console: The console.
        run: The run folder.
        tasks: The tasks, in the order in which they are shown.
        details: Whether verdicts and scores are shown too; controls are, where there are some.
    """
    scores = report.read_record(run / SCORES, Scores)
    console.print()
    if details:
        _show_tables(console, run, tasks, scores)
    if controls := report.read_record(run / CONTROLS, Controls):
        compared = report.control_table(controls)
        show_table(console, "Controls", compared.headings, compared.rows, texts=2)
        for sentence in filter(None, (compared.worth, compared.precision)):
            _say(console, sentence)
    for label, text in report.closing_lines(run, scores, details=details):
        _say(console, text, label=label)


def _show_tables(console: Console, run: Path, tasks: Sequence[str], scores: Scores | None) -> None:
    verdicts = report.verdicts_by_task(run, tasks)
    kinds = list(next(iter(verdicts.values()), {}))
    rows = [[task, *(f"{counts[kind]:,}" for kind in kinds)] for task, counts in verdicts.items()]
    show_table(console, "Pairs by verdict", ["task", *(report.VERDICT_WORDS[kind] for kind in kinds)], rows, texts=1)
    for told in report.score_tables(scores) if scores else ():
        show_table(console, told.caption, told.headings, told.rows, texts=told.words)


def show_steps(console: Console, steps: "Sequence[pipeline.Step]") -> None:
    """Prints what a run would do."""
    rows = [[step.stage, step.why, _asked_in(step)] for step in steps]
    show_table(console, "", ["stage", "done", "questions"], rows, texts=3)


def _asked_in(step: "pipeline.Step") -> str:
    if step.questions is None:
        return f"at most {step.at_most:,}" if step.at_most else ""
    waiting = f", {step.waiting:,} of which wait there" if step.waiting else ""
    return f"{step.questions:,} to {step.model}{waiting}" if step.questions else "none"


def show_status(
    console: Console, found: "Sequence[pipeline.StageStatus]", waiting: "Sequence[pipeline.WaitingJob]"
) -> None:
    """Prints how far a run is, and what waits at providers."""
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
    for each in waiting:
        handed_in = f"job {each.job}: {each.told}, {each.done:,} done when looked at last"
        far = handed_in if each.job else "cut off while they were handed in"
        _say(
            console,
            f"{each.questions:,} questions of {each.stage} wait at {each.model} since {each.made} UTC "
            f"({far}); the same command as before takes the answers",
        )


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
    show_rows(console, planning.PROJECTION_HEADINGS, found.table(), texts=2)
    for line in ("", *found.lines()):
        _say(console, line)


def show_tables(console: Console, tables: "Iterable[report.Table]") -> None:
    """Prints tables with their captions above."""
    for told in tables:
        show_table(console, told.caption, told.headings, told.rows, texts=told.words)


def _say(console: Console, line: str, *, label: str = "") -> None:
    """Prints a line with what it is about; a terminal's width folds it between words only, a log keeps it whole."""
    whole = f"{label}: {line}" if label else line
    width = console.width if console.is_terminal else len(whole) + 1
    parts = wrap(whole, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) or [whole]
    first = Text(parts[0])
    first.stylize("bold cyan", 0, len(label))
    for part in (first, *map(Text, parts[1:])):
        console.print(part, soft_wrap=True)
