"""What a command says at the end of a run: five lines that count, and the tables behind them, as plain text."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from parityalign.core import REPORT, STUDENT_FOLDER, Scores
from parityalign.report.beside_teacher import beside_teacher
from parityalign.report.discrepancy import Table
from parityalign.report.flow import verdicts_by_task
from parityalign.report.held_out import HELD_OUT_HEADINGS, held_out_line, held_out_table
from parityalign.report.retention import FORGOTTEN_HEADINGS, forgotten_table, speed_line
from parityalign.report.summary import Summary, summary_of
from parityalign.report.tables import (
    COVERAGE_HEADINGS,
    PART_HEADINGS,
    SCORE_HEADINGS,
    counted,
    coverage_table,
    headline,
    part_table,
    score_table,
)


class Line(NamedTuple):
    """One line with what it is about."""

    label: str
    text: str


def closing_lines(run: Path, scores: Scores | None, *, details: bool) -> list[Line]:
    """Before, after and teacher; the gain; what was kept; where report and student lie; what to do next.

    Args:
        run: The run folder.
        scores: None if there are none yet.
        details: Whether the tables were shown, so that nobody needs to be told how to see them.
    """
    summary = summary_of(run, scores, verdicts_by_task(run, []), beside_teacher(run, scores))
    kept = _kept(scores) if scores else ""
    student = run / STUDENT_FOLDER
    where = f"{run / REPORT}; student: {student if (student / 'config.json').is_file() else 'as it was'}"
    lines = [Line("result", _figures(summary)), Line("gain", _gain(summary, scores)), Line("kept", kept)]
    lines += [Line("report", where), Line("next", _next(run, details=details))]
    return [line for line in lines if line.text]


def score_tables(scores: Scores) -> list[Table]:
    """All scores, shares and what was lost, each with a caption; those without rows are left out."""
    tables = [
        Table("Scores, from 0 to 100, with 95 % intervals", SCORE_HEADINGS, _plain(score_table(scores)), 2),
        Table("Parts of the benchmarks", PART_HEADINGS, _plain(part_table(scores)), 1),
        Table("Questions that were scored", COVERAGE_HEADINGS, _plain(coverage_table(scores)), 2),
        Table("What the student lost", FORGOTTEN_HEADINGS, _plain(forgotten_table(scores.forgotten)), 1),
        Table("On held-out images", HELD_OUT_HEADINGS, _plain(held_out_table(scores.held_out)), 1),
    ]
    return [table for table in tables if table.rows]


def _plain(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [*rows]


def _figures(summary: Summary) -> str:
    told = ", ".join(f"{figure.words.lower()} {figure.value}" for figure in summary.figures.values())
    return f"{told} ({summary.scale})" if told else summary.title


def _gain(summary: Summary, scores: Scores | None) -> str:
    if summary.why:
        return summary.why
    return headline(scores) if scores and scores.tasks else held_out_line(scores.held_out if scores else None)


def _kept(scores: Scores) -> str:
    lost = [
        f"{of.total.lost:,} of {counted(of.total.had_right, noun)}"
        for of, noun in ((scores.forgotten.pairs, "pair"), (scores.forgotten.questions, "test question"))
        if of and of.total.had_right
    ]
    told = f"lost {' and '.join(lost)} that it had right" if lost else ""
    return "; ".join(filter(None, (speed_line(scores.speed), told)))


def _next(run: Path, *, details: bool) -> str:
    return f"parityalign view {run}{'' if details else f', or all tables: parityalign report {run} --details'}"
