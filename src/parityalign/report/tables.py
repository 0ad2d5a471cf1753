"""The scores of a run as rows of plain text, the same for terminal and page."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from parityalign.core import Comparison, Coverage, Estimate, Gain, Scores, TaskScores
from parityalign.report.words import in_words

WHO = ("before", "after", "teacher")
"""The models in the order of every table."""
ABSENT = "-"
"""Shown for an unknown number."""


class ScoreRow(NamedTuple):
    """One line of the score table; every cell is text."""

    task: str
    metric: str
    n: str
    before: str
    after: str
    teacher: str
    gain: str
    p: str


class PartRow(NamedTuple):
    """One line of the table of the benchmarks' subsets."""

    part: str
    n: str
    before: str
    after: str
    teacher: str
    gain: str


class PaperRow(NamedTuple):
    """One line of the table of the paper's substring rule."""

    task: str
    n: str
    before: str
    after: str
    teacher: str


class CoverageRow(NamedTuple):
    """One line of the table of scored and unscored questions."""

    task: str
    why: str
    questions: str
    scored: str
    not_scored: str


PART_HEADINGS = PartRow("part", "questions", "before", "after", "teacher", "gain")
COVERAGE_HEADINGS = CoverageRow("task", "why not", "questions in the file", "scored", "not scored")
SCORE_HEADINGS = ScoreRow("task", "metric", "questions", "before", "after", "teacher", "gain", "p")
PAPER_HEADINGS = PaperRow("task", "questions", "before", "after", "teacher")


def score_table(scores: Scores) -> list[ScoreRow]:
    """One row per task in the order of the file, then their unweighted mean if there are several."""
    rows = [_score_row(name, task) for name, task in scores.tasks.items()]
    return [*rows, _mean_row(scores)] if len(rows) > 1 else rows


def paper_table(scores: Scores) -> list[PaperRow]:
    """One row for each task that was also scored by the paper's substring rule."""
    tasks = scores.tasks.items()
    return [_paper_row(name, task) for name, task in tasks]


def part_table(scores: Scores) -> list[PartRow]:
    """One row per subset of each benchmark that has several, then their unweighted mean, as papers report it."""
    rows = []
    for name, task in scores.tasks.items():
        if len(task.subsets) > 1:
            rows += [_part_row(f"{name}, {part}", found) for part, found in task.subsets.items()]
            rows.append(_parts_mean(f"{name}, mean of the parts", list(task.subsets.values())))
    return rows


def coverage_table(scores: Scores) -> list[CoverageRow]:
    """For each task how many questions its file has, how many were scored, and why the others were not."""
    return [_coverage_row(name, task.coverage) for name, task in scores.tasks.items()]


def headline(scores: Scores) -> str:
    """The result in one sentence."""
    if not scores.questions:
        return "Not scored: there are no labelled questions."
    gain, count = scores.mean_gain, f"on {counted(scores.questions, 'question')}"
    if gain is None:
        return f"Scored {count}, without a mean gain."
    start = "The student gained" if gain.score > 0 else "The student did not gain: it changed by"
    amount = f"{gain.score:.1f} points on average{_bracketed(gain.ci)}"
    if scores.gap_recovered is None:
        return f"{start} {amount}, {count}."
    return f"{start} {amount}, {percent(scores.gap_recovered)} of the distance to the teacher, {count}."


def estimate_cell(value: Estimate | None, *, signed: bool = False) -> str:
    """A score with its interval, such as `62.0 [58.9, 65.1]`; `signed` writes a plus before gains."""
    if value is None:
        return ABSENT
    sign = "+" if signed else ""
    return f"{value.score:{sign}.1f}{_bracketed(value.ci, sign)}"


def interval_words(ci: tuple[float, float] | None, sign: str = "") -> str:
    """An interval as it is read aloud, such as `58.9 to 65.1`; empty without one."""
    return f"{ci[0]:{sign}.1f} to {ci[1]:{sign}.1f}" if ci else ""


def p_value(gain: Gain) -> str:
    """A gain's p value to three digits, never below the smallest of a permutation test."""
    if gain.p is None:
        return ABSENT
    return "<0.001" if gain.p < 0.001 else f"{gain.p:.3f}"


def percent(share: float) -> str:
    """A share between 0 and 1 as whole per cent."""
    return f"{100 * share:.0f} %"


def counted(number: int, noun: str) -> str:
    """A count with its noun: `1 question`, `1,600 questions`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _bracketed(ci: tuple[float, float] | None, sign: str = "") -> str:
    return f" [{ci[0]:{sign}.1f}, {ci[1]:{sign}.1f}]" if ci else ""


def _score_row(name: str, task: TaskScores) -> ScoreRow:
    return ScoreRow(
        task=name,
        metric=in_words(task.metric),
        n=f"{task.n:,}",
        before=estimate_cell(task.before),
        after=estimate_cell(task.after),
        teacher=estimate_cell(task.teacher),
        gain=estimate_cell(task.gain, signed=True),
        p=p_value(task.gain),
    )


def _mean_row(scores: Scores) -> ScoreRow:
    tasks = scores.tasks.values()
    return ScoreRow(
        task="mean",
        metric="",
        n=f"{scores.questions:,}",
        before=_mean([task.before for task in tasks]),
        after=_mean([task.after for task in tasks]),
        teacher=_mean([task.teacher for task in tasks]),
        gain=estimate_cell(scores.mean_gain, signed=True),
        p=ABSENT,
    )


def _part_row(name: str, part: Comparison) -> PartRow:
    before, after, teacher = (estimate_cell(found) for found in (part.before, part.after, part.teacher))
    return PartRow(name, f"{part.n:,}", before, after, teacher, estimate_cell(part.gain, signed=True))


def _parts_mean(name: str, parts: Sequence[Comparison]) -> PartRow:
    before, after, teacher, gain = (
        _mean([getattr(part, what) for part in parts]) for what in ("before", "after", "teacher", "gain")
    )
    signed = gain if gain.startswith("-") else f"+{gain}"
    return PartRow(name, f"{sum(part.n for part in parts):,}", before, after, teacher, signed)


def _coverage_row(name: str, coverage: Coverage) -> CoverageRow:
    reasons = sorted(coverage.not_scored.items(), key=lambda item: (-item[1], item[0]))
    why = ", ".join(f"{count:,} {in_words(reason)}" for reason, count in reasons)
    missed = sum(coverage.not_scored.values())
    return CoverageRow(name, why or ABSENT, f"{coverage.questions:,}", f"{coverage.scored:,}", f"{missed:,}")


def _mean(values: Sequence[Estimate | None]) -> str:
    known = [value.score for value in values if value is not None]
    return f"{fmean(known):.1f}" if len(known) == len(values) else ABSENT


def _paper_row(name: str, task: TaskScores) -> PaperRow:
    before, after, teacher = (f"{getattr(task.paper_metric, who):.1f}" for who in WHO)
    return PaperRow(name, f"{task.n:,}", before, after, teacher)
