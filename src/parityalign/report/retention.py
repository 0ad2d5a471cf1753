"""Retention: speed and earlier right answers after levelling, as rows and sentences of plain text."""

from typing import NamedTuple

from parityalign.core import Forgotten, Regressions, RegressionsByTask, Speed, Usage
from parityalign.report.tables import ABSENT, counted

_REASONS = {
    "not_wanted": "evaluate.speed_questions is 0",
    "no_questions": "there is no question to time the students on",
    "not_levelled": "the student is the one before",
    "remote": "the student does not run in this process",
}
_GIGA, _MEGA = 1e9, 1e6


class ForgottenRow(NamedTuple):
    """One line of the table of regressions; every cell is text."""

    task: str
    pairs: str
    pairs_lost: str
    pairs_share: str
    questions: str
    questions_lost: str
    questions_share: str


class SpeedRow(NamedTuple):
    """One line of the table of speed and memory."""

    what: str
    before: str
    after: str


FORGOTTEN_HEADINGS = ForgottenRow(
    "task", "pairs it had right", "lost", "lost, %", "test questions it had right", "lost", "lost, %"
)
SPEED_HEADINGS = SpeedRow("the student", "before", "after")


def forgotten_table(forgotten: Forgotten | None) -> list[ForgottenRow]:
    """One row per task, and one for all if there are several; none if nothing was asked."""
    if forgotten is None:
        return []
    pairs = forgotten.pairs.tasks if forgotten.pairs else {}
    names = list(dict.fromkeys([*pairs, *forgotten.questions.tasks]))
    rows = [_forgotten_row(name, pairs.get(name), forgotten.questions.tasks.get(name)) for name in names]
    if len(rows) < 2:
        return rows
    return [*rows, _forgotten_row("all", _total(forgotten.pairs), _total(forgotten.questions))]


def speed_line(speed: Speed | None) -> str:
    """The speed after levelling relative to before, in one line; empty if it was not evaluated."""
    if speed is None:
        return ""
    if speed.ratio is None:
        return f"speed: not measured, since {_REASONS.get(speed.not_measured or '', speed.not_measured)}"
    interval = f" [{speed.ratio.ci[0]:.2f}, {speed.ratio.ci[1]:.2f}]" if speed.ratio.ci else ""
    asked = f"{counted(speed.questions, 'question')}, {counted(speed.trials, 'trial')}"
    return f"speed: {speed.ratio.value:.2f} times as fast as before{interval} ({asked})"


def speed_table(speed: Speed | None) -> list[SpeedRow]:
    """Speed and memory before and after; no rows if not measured."""
    if speed is None or speed.before is None or speed.after is None:
        return []
    cells = zip(_cells(speed.before), _cells(speed.after), strict=True)
    return [SpeedRow(what, before, after) for (what, before), (_, after) in cells]


def _cells(usage: Usage) -> list[tuple[str, str]]:
    return [
        ("parameters, millions", f"{usage.parameters / _MEGA:,.2f}"),
        ("answers per second", f"{usage.answers_per_second:,.2f}"),
        ("time to first token, ms", f"{1000 * usage.first_token_seconds:,.1f}"),
        ("peak memory, GB", ABSENT if usage.peak_bytes is None else f"{usage.peak_bytes / _GIGA:,.3f}"),
        ("words in an answer", f"{usage.words:.2f}"),
    ]


def _total(lost: RegressionsByTask | None) -> Regressions | None:
    return lost.total if lost else None


def _forgotten_row(name: str, pairs: Regressions | None, questions: Regressions | None) -> ForgottenRow:
    return ForgottenRow(name, *regression_cells(pairs), *regression_cells(questions))


def regression_cells(lost: Regressions | None) -> tuple[str, str, str]:
    """How many it had right, how many of these it lost, and the lost share in per cent with its interval."""
    if lost is None or lost.share is None:
        return (ABSENT, ABSENT, ABSENT)
    interval = f" [{100 * lost.ci[0]:.1f}, {100 * lost.ci[1]:.1f}]" if lost.ci else ""
    return f"{lost.had_right:,}", f"{lost.lost:,}", f"{100 * lost.share:.1f}{interval}"
