"""How a measure is distributed, by task and verdict, as inline SVG: boxes on one axis."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from parityalign.core import VerdictKind
from parityalign.metrics import Spread
from parityalign.report.charts import LEFT, RIGHT, drawing, element
from parityalign.report.discrepancy import Spreads
from parityalign.report.flow import VERDICT_WORDS

LANE = 14.0
HEAD = 22.0
"""Height of a task's name."""
TICKS = 5
NARROW = 2.0
"""Smallest width of a box."""


def spread_chart(name: str, title: str, found: Spreads) -> Markup:
    """For each task and verdict a box from first to third quartile with the median; whiskers at 5 and 95 %.

    Args:
        name: Of the drawing, unique on the page.
        title: What is measured.
        found: At least one distribution.
    """
    every = [value for of_task in found.values() for value in of_task.values()]
    axis = _Axis(min(each.low for each in every), max(each.high for each in every))
    parts, top = [], 4.0
    for task, of_task in found.items():
        parts.append(element("text", task, x=LEFT, y=top + 13, class_="label"))
        parts += [
            _lane(kind, value, axis, top + HEAD + LANE * row) for row, (kind, value) in enumerate(of_task.items())
        ]
        top += HEAD + LANE * len(of_task) + 8
    told = "; ".join(
        f"{task}: {', '.join(_in_words(kind, value) for kind, value in of_task.items())}"
        for task, of_task in found.items()
    )
    described = f"Boxes show the middle half, whiskers the middle 90 %. {told}."
    return drawing(name, title, described, top + 14, [axis.drawn(top), *parts])


class _Axis:
    """The scale from values to x positions."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._width = low, (high - low) or 1.0

    def x(self, value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - self._low) / self._width

    def drawn(self, bottom: float) -> Markup:
        parts = []
        for value in _ticks(self._low, self._low + self._width):
            x = self.x(value)
            parts += [
                element("line", x1=x, x2=x, y1=0.0, y2=bottom, class_="grid"),
                element("text", f"{value:g}", x=x, y=bottom + 11, class_="small", text_anchor="middle"),
            ]
        return element("g", *parts)


def _ticks(low: float, high: float) -> Sequence[float]:
    """About `TICKS` round numbers in the range."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _lane(kind: VerdictKind, value: Spread, axis: _Axis, y: float) -> Markup:
    shape = f"verdict spread {kind}"
    low, quarter, median, upper, high = (axis.x(at) for at in value[2:])
    parts = [
        element("title", _in_words(kind, value)),
        element("rect", x=low, y=y + 4.2, width=max(high - low, 0.5), height=1.5, class_=shape),
        element("rect", x=quarter, y=y, width=max(upper - quarter, NARROW), height=10.0, class_=shape),
    ]
    if upper - quarter > 2 * NARROW:  # the line of the median would cover a narrower box
        parts.append(element("line", x1=median, x2=median, y1=y, y2=y + 10, class_="median"))
    return element("g", *parts)


def _in_words(kind: VerdictKind, value: Spread) -> str:
    half = f"{value.quarter:.2f} to {value.three_quarters:.2f}"
    return f"{VERDICT_WORDS[kind]} median {value.median:.2f} ({half}, {value.n:,} pairs)"
