"""How far gaps are ahead of random pairs, pool by pool and budget by budget, as inline SVG."""

from collections.abc import Callable, Sequence
from math import ceil, floor
from typing import NamedTuple

from markupsafe import Markup

from parityalign.core import Estimate
from parityalign.report.charts import LANE, LEFT, RIGHT, WIDTH, drawing, element
from parityalign.report.tables import counted, estimate_cell

START, END = LEFT + 76, RIGHT - 96
"""Of the axis: budgets stand at its left, scores at its right."""
TICKS = 8
"""At most, beside the first."""
CAPTION = (
    "points ahead of as many random pairs",
    "95 %: thick over images, thin over seeds (three or more)",
)


class Lane(NamedTuple):
    """One budget."""

    steps: int
    seeds: int
    lead: Estimate
    """In points, with its interval over images."""
    over_seeds: tuple[float, float] | None = None


class Lanes(NamedTuple):
    """One pool."""

    name: str
    told: str
    """What stands at the right of its name."""
    lanes: Sequence[Lane]


def picking_chart(pools: Sequence[Lanes], *behind: Markup, margin: float = 0, **attributes: object) -> Markup:
    """For each pool and budget the lead as a dot, with its intervals over images and over seeds.

    Args:
        pools: In order.
        behind: What the drawing begins with.
        margin, attributes: Of the drawing.
    """
    ticks = _ticks([lane for pool in pools for lane in pool.lanes])

    def x(points: float) -> float:
        return START + (END - START) * (points - ticks[0]) / (ticks[-1] - ticks[0])

    parts, y = [], 4.0
    for pool in pools:
        parts += [
            element("text", pool.name, x=LEFT, y=y + 11, class_="label"),
            element("text", pool.told, x=RIGHT, y=y + 11, class_="small", text_anchor="end"),
        ]
        parts += [_lane(lane, y + 24 + LANE * place, x) for place, lane in enumerate(pool.lanes)]
        y += LANE * len(pool.lanes) + 27
    axis = [_tick(points, x(points), y) for points in ticks]
    caption = [
        element("text", line, x=WIDTH / 2, y=y + 26 + LANE * place, class_="small", text_anchor="middle")
        for place, line in enumerate(CAPTION)
    ]
    told = "; ".join(f"{pool.name}: {', '.join(map(_in_words, pool.lanes))}" for pool in pools)
    return drawing(
        "picking",
        "When picking gaps pays: points by which gaps and replay are ahead of as many random pairs",
        f"Means over seeds with 95 % intervals over images. {told}.",
        y + 26 + LANE * len(CAPTION),
        [*behind, *axis, *parts, *caption],
        margin=margin,
        **attributes,
    )


def _ticks(lanes: Sequence[Lane]) -> range:
    """Whole points that are the same distance apart and span all that is drawn, and 0."""
    ends = [0.0, *(end for lane in lanes for end in (lane.lead.score, *(lane.lead.ci or ()), *(lane.over_seeds or ())))]
    low, high = min(ends), max(ends)
    step = next(step for step in (1, 2, 5, 10, 20, 50) if (high - low) / step <= TICKS - 1)
    return range(step * floor(low / step), step * max(1, ceil(high / step)) + 1, step)


def _in_words(lane: Lane) -> str:
    return f"{counted(lane.steps, 'step')} {estimate_cell(lane.lead, signed=True)}"


def _tick(points: int, x: float, bottom: float) -> Markup:
    line = element("line", x1=x, x2=x, y1=20.0, y2=bottom, class_="grid" if points else "grid zero")
    number = f"{points:+d}" if points else "0"
    return element("g", line, element("text", number, x=x, y=bottom + 12, class_="small", text_anchor="middle"))


def _lane(lane: Lane, y: float, x: Callable[[float], float]) -> Markup:
    marks = []
    if lane.lead.ci:
        low, high = map(x, lane.lead.ci)
        marks.append(element("path", d=f"M{low:.1f} {y:.1f}H{high:.1f}", class_="whisker after thick"))
    if lane.over_seeds:
        low, high = map(x, lane.over_seeds)
        marks.append(element("path", d=f"M{low:.1f} {y - 3:.1f}v6m0-3H{high:.1f}m0-3v6", class_="whisker after"))
    return element(
        "g",
        element("title", _in_words(lane)),
        element("text", counted(lane.steps, "step"), x=LEFT, y=y + 3.5, class_="small"),
        *marks,
        element("circle", cx=x(lane.lead.score), cy=y, r=4.0, class_="mark after"),
        element("text", _number(lane), x=RIGHT, y=y + 3.5, class_="small", text_anchor="end"),
    )


def _number(lane: Lane) -> str:
    return f"{lane.lead.score:+z.1f} ({counted(lane.seeds, 'seed')})"
