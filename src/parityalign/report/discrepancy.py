"""The discrepancies of a run as rows of plain text, the same for terminal and page."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from parityalign.core import Measure, PairDiscrepancy, VerdictKind, content_id
from parityalign.metrics import Item, Spread, calibration, rank_correlation, separation, spread
from parityalign.report.flow import VERDICT_WORDS, in_order
from parityalign.report.tables import ABSENT, counted
from parityalign.report.words import in_words

MEASURE_WORDS: Mapping[Measure, str] = {
    Measure.CONFIDENCE_GAP: "confidence gap",
    Measure.ATTENTION_DIVERGENCE: "attention divergence",
    Measure.RATIONALE_GAP: "rationale gap",
}
MEASURE_MEANING: Mapping[Measure, str] = {
    Measure.CONFIDENCE_GAP: "teacher's minus student's mean log-probability of the pair's answer, in nats per token",
    Measure.ATTENTION_DIVERGENCE: "Jensen-Shannon divergence of the attention maps, in nats (0 equal, 0.693 disjoint)",
    Measure.RATIONALE_GAP: "teacher's minus student's mean log-probability of the rationale, in nats per token",
}
ALL = "all tasks"
PLOT_WIDTH = 32
"""Characters of a distribution on the terminal."""


class Table(NamedTuple):
    """A table of plain text."""

    caption: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    words: int
    """How many of the first columns are text; the others are numbers."""


Spreads = Mapping[str, Mapping[VerdictKind, Spread]]
"""Distributions by task, then by verdict; only those with values."""


def spreads(pairs: Sequence[PairDiscrepancy], measure: Measure, tasks: Sequence[str]) -> Spreads:
    """How a measure is distributed, by task and verdict.

    Args:
        pairs: All compared pairs of a run.
        measure: The measure.
        tasks: In the order in which they are shown.
    """
    found = {}
    for task, of_task in _by_task(pairs, tasks).items():
        known = {kind: spread(_known(of_task, measure, kind)) for kind in VERDICT_WORDS}
        if any(known.values()):
            found[task] = {kind: value for kind, value in known.items() if value}
    return found


def discrepancy_tables(pairs: Sequence[PairDiscrepancy], tasks: Sequence[str], *, seed: int) -> list[Table]:
    """All tables of the discrepancies, for plain text; see `measure_table` and `relation_tables`."""
    plotted = [_plotted(measure_table(pairs, measure, tasks), spreads(pairs, measure, tasks)) for measure in Measure]
    return [*plotted, *relation_tables(pairs, tasks, seed=seed)]


def measure_table(pairs: Sequence[PairDiscrepancy], measure: Measure, tasks: Sequence[str]) -> Table:
    """A measure's count, mean and quartiles by task and verdict; arguments as in `spreads`."""
    counts = Counter((pair.task, pair.verdict) for pair in pairs)
    rows = [
        (task, VERDICT_WORDS[kind], f"{counts[task, kind]:,}", f"{found.n:,}", *_described(found))
        for task, of_task in spreads(pairs, measure, tasks).items()
        for kind, found in of_task.items()
    ]
    headings = ("task", "verdict", "pairs", "known", "mean", "25 %", "median", "75 %")
    caption = f"{MEASURE_WORDS[measure].capitalize()}: {MEASURE_MEANING[measure]}. {_missing(pairs, measure)}"
    return Table(caption, headings, rows, words=2)


def relation_tables(pairs: Sequence[PairDiscrepancy], tasks: Sequence[str], *, seed: int) -> list[Table]:
    """How the discrepancies relate to the student being wrong and to one another, and how calibrated each model is.

    Args:
        pairs: All compared pairs of a run.
        tasks: In the order in which they are shown.
        seed: Of the bootstrap.
    """
    tables = [
        Table(
            "How well a discrepancy predicts which pairs the student has wrong: area under the ROC curve, with its "
            "95 % interval from a bootstrap over images. 0.5: not at all; 1: a larger discrepancy is always a wrong "
            "answer.",
            ("discrepancy", "task", "area", "wrong", "right", "images"),
            _separation_rows(pairs, tasks, seed),
            words=2,
        ),
        Table(
            "How the discrepancies correlate, over the pairs that have both: Spearman's rank correlation.",
            ("discrepancy", "with", "correlation", "pairs"),
            _correlation_rows(pairs),
            words=2,
        ),
        Table(
            "How well each model's probability of the pair's answer predicts that its own answer is right: expected "
            "calibration error over 10 bins of equal count, on the pairs where the model was asked.",
            ("task", "model", "error", "mean probability", "right", "pairs", "not known"),
            _calibration_rows(pairs, tasks),
            words=2,
        ),
    ]
    return [table for table in tables if table.rows]


def _plotted(table: Table, found: Spreads) -> Table:
    """The table with a column that shows each distribution on a common axis: `..--==|===---`."""
    every = [value for of_task in found.values() for value in of_task.values()]
    if not every:
        return table
    low, high = min(value.low for value in every), max(value.high for value in every)
    rows = [(*row, _plot(value, low, high)) for row, value in zip(table.rows, every, strict=True)]
    return table._replace(headings=(*table.headings, f"from {low:.2f} to {high:.2f}"), rows=rows)


def _plot(value: Spread, low: float, high: float) -> str:
    """The 5th to 95th percentile as `-`, the middle half as `=`, the median as `|`."""

    def place(at: float) -> int:
        return round((PLOT_WIDTH - 1) * (at - low) / ((high - low) or 1.0))

    cells = ["."] * PLOT_WIDTH  # not spaces, which a table may strip
    for mark, start, end in (("-", value.low, value.high), ("=", value.quarter, value.three_quarters)):
        first, last = place(start), place(end)
        cells[first : last + 1] = mark * (last + 1 - first)
    cells[place(value.median)] = "|"
    return "".join(cells)


def _by_task(pairs: Sequence[PairDiscrepancy], tasks: Sequence[str]) -> dict[str, list[PairDiscrepancy]]:
    found: dict[str, list[PairDiscrepancy]] = {task: [] for task in in_order((each.task for each in pairs), tasks)}
    for pair in pairs:
        found[pair.task].append(pair)
    return found


def _scopes(pairs: Sequence[PairDiscrepancy], tasks: Sequence[str]) -> dict[str, Sequence[PairDiscrepancy]]:
    """Each task's pairs, then all of them if there are several tasks."""
    by_task = _by_task(pairs, tasks)
    return {**by_task, ALL: pairs} if len(by_task) > 1 else {**by_task}


def _known(pairs: Sequence[PairDiscrepancy], measure: Measure, kind: VerdictKind) -> list[float]:
    values = (getattr(pair, measure) for pair in pairs if pair.verdict == kind)
    return [value for value in values if value is not None]


def _missing(pairs: Sequence[PairDiscrepancy], measure: Measure) -> str:
    """How many pairs lack the measure, and why."""
    why = Counter(pair.missing[measure] for pair in pairs if measure in pair.missing)
    reasons = ", ".join(f"{count:,} {in_words(reason)}" for reason, count in why.most_common())
    known = f"Known of {len(pairs) - why.total():,} of {counted(len(pairs), 'pair')}"
    return f"{known}; not of the others: {reasons}." if reasons else f"{known}."


def _described(found: Spread) -> tuple[str, ...]:
    return tuple(f"{value:.3f}" for value in (found.mean, found.quarter, found.median, found.three_quarters))


def _separation_rows(pairs: Sequence[PairDiscrepancy], tasks: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    rows = []
    for measure in Measure:
        for scope, of_scope in _scopes(pairs, tasks).items():
            items = [
                Item(value, pair.student_wrong, pair.image_id)
                for pair in of_scope
                if (value := getattr(pair, measure)) is not None and pair.student_wrong is not None
            ]
            if found := separation(items, _chance(seed, measure, scope)):
                interval = f" [{found.interval[0]:.3f}, {found.interval[1]:.3f}]" if found.interval else ""
                numbers = (f"{count:,}" for count in (found.inside, found.outside, found.images))
                rows.append((MEASURE_WORDS[measure], scope, f"{found.area:.3f}{interval}", *numbers))
    return rows


def _correlation_rows(pairs: Sequence[PairDiscrepancy]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one, other in combinations(Measure, 2):
        both = [(getattr(pair, one), getattr(pair, other)) for pair in pairs]
        known = [(a, b) for a, b in both if a is not None and b is not None]
        if known:
            found = rank_correlation([a for a, _ in known], [b for _, b in known])
            written = ABSENT if found is None else f"{found:+.3f}"
            rows.append((MEASURE_WORDS[one], MEASURE_WORDS[other], written, f"{len(known):,}"))
    return rows


def _calibration_rows(pairs: Sequence[PairDiscrepancy], tasks: Sequence[str]) -> list[tuple[str, ...]]:
    rows = []
    for task, of_task in _by_task(pairs, tasks).items():
        for who in ("teacher", "student"):
            known = sorted(told for pair in of_task if (told := _sure_and_right(pair, who)))
            found = calibration([sure for sure, _, _ in known], [right for _, _, right in known])
            if found:
                numbers = (f"{value:.3f}" for value in (found.error, found.probability, found.right))
                rows.append((task, who, *numbers, f"{found.n:,}", f"{len(of_task) - found.n:,}"))
    return rows


def _sure_and_right(pair: PairDiscrepancy, who: str) -> tuple[float, str, bool] | None:
    """The model's probability of the pair's whole answer, and whether its own answer was right."""
    logprob, tokens, right = (getattr(pair, f"{who}_{what}") for what in ("logprob", "tokens", "right"))
    # The identity in between orders equal probabilities independently of right and wrong.
    return None if logprob is None or right is None else (math.exp(logprob * tokens), pair.pair_id, right)


def _chance(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, int(content_id(*names)[:8], 16)])
