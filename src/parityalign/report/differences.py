"""The discrepancies of a run as rows of plain text, so that terminal and page write the same numbers one way."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from parityalign.core import Measure, Profile, VerdictKind, content_id
from parityalign.metrics import Item, Spread, calibration, rank_correlation, separation, spread
from parityalign.report.flow import VERDICT_WORDS, in_order
from parityalign.report.tables import ABSENT, counted
from parityalign.stages import signed_measure

MEASURE_WORDS: Mapping[Measure, str] = {
    Measure.CONFIDENCE_GAP: "confidence gap",
    Measure.ATTENTION_DIVERGENCE: "attention divergence",
    Measure.PATH_SURPRISE: "path surprise",
}
MEASURE_MEANING: Mapping[Measure, str] = {
    Measure.CONFIDENCE_GAP: "teacher's minus student's mean log-probability of the pair's answer, in nats a token",
    Measure.ATTENTION_DIVERGENCE: "Jensen-Shannon divergence of where the models look, in nats (0 same, 0.693 apart)",
    Measure.PATH_SURPRISE: "student's minus teacher's mean log-likelihood of the explanation, in nats a token",
}
ALL = "all tasks"
PLOT_WIDTH = 32
"""Characters of a distribution on the terminal."""


class Table(NamedTuple):
    """Plain text, ready to be drawn."""

    caption: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    words: int
    """How many of the first columns are words; the others are numbers."""


Spreads = Mapping[str, Mapping[VerdictKind, Spread]]
"""By task, then by verdict; only where there are values."""


def spreads(profiles: Sequence[Profile], measure: Measure, tasks: Sequence[str]) -> Spreads:
    """How a measure is distributed, by task and verdict.

    Args:
        profiles: All of a run.
        measure: Which.
        tasks: In the order in which they are shown.
    """
    found = {}
    for task, of_task in _by_task(profiles, tasks).items():
        known = {kind: spread(_known(of_task, measure, kind)) for kind in VERDICT_WORDS}
        if any(known.values()):
            found[task] = {kind: value for kind, value in known.items() if value}
    return found


def difference_tables(profiles: Sequence[Profile], tasks: Sequence[str], *, seed: int) -> list[Table]:
    """All that is told of the discrepancies where nothing can be drawn; see `measure_table` and `relation_tables`."""
    plotted = [
        _plotted(measure_table(profiles, measure, tasks), spreads(profiles, measure, tasks)) for measure in Measure
    ]
    return [*plotted, *relation_tables(profiles, tasks, seed=seed)]


def measure_table(profiles: Sequence[Profile], measure: Measure, tasks: Sequence[str]) -> Table:
    """A measure's count, mean and quartiles by task and verdict; arguments as in `spreads`."""
    counts = Counter((profile.task, profile.verdict) for profile in profiles)
    rows = [
        (task, VERDICT_WORDS[kind], f"{counts[task, kind]:,}", f"{found.n:,}", *_described(found))
        for task, of_task in spreads(profiles, measure, tasks).items()
        for kind, found in of_task.items()
    ]
    headings = ("task", "verdict", "pairs", "known", "mean", "25 %", "median", "75 %")
    caption = f"{MEASURE_WORDS[measure].capitalize()}: {MEASURE_MEANING[measure]}. {_missing(profiles, measure)}"
    return Table(caption, headings, rows, words=2)


def relation_tables(profiles: Sequence[Profile], tasks: Sequence[str], *, seed: int) -> list[Table]:
    """What the discrepancies say of the student being wrong, of one another, and how well each model knows itself.

    Args:
        profiles: All of a run.
        tasks: In the order in which they are shown.
        seed: Of the intervals.
    """
    tables = [
        Table(
            "How well a discrepancy tells the pairs that the student has wrong: area under the ROC curve, with its "
            "95 % interval from a bootstrap over images. 0.5: not at all; 1: a larger discrepancy is always a wrong "
            "answer.",
            ("discrepancy", "task", "area", "wrong", "right", "images"),
            _separation_rows(profiles, tasks, seed),
            words=2,
        ),
        Table(
            "How the discrepancies go together over the pairs that have both: Spearman's rank correlation.",
            ("discrepancy", "with", "correlation", "pairs"),
            _correlation_rows(profiles),
            words=2,
        ),
        Table(
            "How well each model's probability of the pair's answer says how often its own answer is right: expected "
            "calibration error over 10 bins of equal count, where it was asked.",
            ("task", "model", "error", "mean probability", "right", "pairs", "not known"),
            _calibration_rows(profiles, tasks),
            words=2,
        ),
    ]
    return [table for table in tables if table.rows]


def _plotted(table: Table, found: Spreads) -> Table:
    """The table with a column in which each distribution stands on one axis: `..--==|===---`."""
    every = [value for of_task in found.values() for value in of_task.values()]
    if not every:
        return table
    low, high = min(value.low for value in every), max(value.high for value in every)
    rows = [(*row, _plot(value, low, high)) for row, value in zip(table.rows, every, strict=True)]
    return table._replace(headings=(*table.headings, f"from {low:.2f} to {high:.2f}"), rows=rows)


def _plot(value: Spread, low: float, high: float) -> str:
    """Nine tenths as `-`, the middle half as `=`, the median as `|`."""

    def place(at: float) -> int:
        return round((PLOT_WIDTH - 1) * (at - low) / ((high - low) or 1.0))

    cells = ["."] * PLOT_WIDTH  # not spaces, which a table may cut off
    for mark, start, end in (("-", value.low, value.high), ("=", value.quarter, value.three_quarters)):
        first, last = place(start), place(end)
        cells[first : last + 1] = mark * (last + 1 - first)
    cells[place(value.median)] = "|"
    return "".join(cells)


def _by_task(profiles: Sequence[Profile], tasks: Sequence[str]) -> dict[str, list[Profile]]:
    found: dict[str, list[Profile]] = {task: [] for task in in_order((each.task for each in profiles), tasks)}
    for profile in profiles:
        found[profile.task].append(profile)
    return found


def _scopes(profiles: Sequence[Profile], tasks: Sequence[str]) -> dict[str, Sequence[Profile]]:
    """Each task's profiles, then all of them where there are several tasks."""
    by_task = _by_task(profiles, tasks)
    return {**by_task, ALL: profiles} if len(by_task) > 1 else {**by_task}


def _known(profiles: Sequence[Profile], measure: Measure, kind: VerdictKind) -> list[float]:
    values = (getattr(profile, measure) for profile in profiles if profile.verdict == kind)
    return [value for value in values if value is not None]


def _missing(profiles: Sequence[Profile], measure: Measure) -> str:
    """How many pairs lack the measure, and why."""
    why = Counter(profile.missing[measure] for profile in profiles if measure in profile.missing)
    reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in why.most_common())
    known = f"Known of {len(profiles) - why.total():,} of {counted(len(profiles), 'pair')}"
    return f"{known}; not of the others: {reasons}." if reasons else f"{known}."


def _described(found: Spread) -> tuple[str, ...]:
    return tuple(f"{value:.3f}" for value in (found.mean, found.quarter, found.median, found.three_quarters))


def _separation_rows(profiles: Sequence[Profile], tasks: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    rows = []
    for measure in Measure:
        for scope, of_scope in _scopes(profiles, tasks).items():
            items = [
                Item(value, profile.student_wrong, profile.image_id)
                for profile in of_scope
                if (value := signed_measure(profile, measure)) is not None and profile.student_wrong is not None
            ]
            if found := separation(items, _chance(seed, measure, scope)):
                interval = f" [{found.interval[0]:.3f}, {found.interval[1]:.3f}]" if found.interval else ""
                numbers = (f"{count:,}" for count in (found.inside, found.outside, found.images))
                rows.append((MEASURE_WORDS[measure], scope, f"{found.area:.3f}{interval}", *numbers))
    return rows


def _correlation_rows(profiles: Sequence[Profile]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one, other in combinations(Measure, 2):
        both = [(signed_measure(profile, one), signed_measure(profile, other)) for profile in profiles]
        known = [(a, b) for a, b in both if a is not None and b is not None]
        if known:
            found = rank_correlation([a for a, _ in known], [b for _, b in known])
            written = ABSENT if found is None else f"{found:+.3f}"
            rows.append((MEASURE_WORDS[one], MEASURE_WORDS[other], written, f"{len(known):,}"))
    return rows


def _calibration_rows(profiles: Sequence[Profile], tasks: Sequence[str]) -> list[tuple[str, ...]]:
    rows = []
    for task, of_task in _by_task(profiles, tasks).items():
        for who in ("teacher", "student"):
            known = sorted(told for profile in of_task if (told := _sure_and_right(profile, who)))
            found = calibration([sure for sure, _, _ in known], [right for _, _, right in known])
            if found:
                numbers = (f"{value:.3f}" for value in (found.error, found.probability, found.right))
                rows.append((task, who, *numbers, f"{found.n:,}", f"{len(of_task) - found.n:,}"))
    return rows


def _sure_and_right(profile: Profile, who: str) -> tuple[float, str, bool] | None:
    """The probability that the model gives the pair's whole answer, and whether its own answer was right."""
    logprob, tokens, right = (getattr(profile, f"{who}_{what}") for what in ("logprob", "tokens", "right"))
    # The identity in between makes an order of equal probabilities that says nothing of right and wrong.
    return None if logprob is None or right is None else (math.exp(logprob * tokens), profile.pair_id, right)


def _chance(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, int(content_id(*names)[:8], 16)])
