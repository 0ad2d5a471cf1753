"""The figure: how far gaps are ahead of random pairs, pool by pool and budget by budget."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor

from parityalign.report.charts import LANE, LEFT, RIGHT, drawing, element
from picking.measured import Value

COLOURS = ("#80622f", "#0a66a8", "#0b6b4f", "#7a3d8f", "#1d2228")
DARK = ("#d3b174", "#5cb3f0", "#5fd0a8", "#cfa0e6", "#e7e9ec")
"""One a budget; the same places in dark mode."""
STYLE = """
text { font: 10.5px system-ui, sans-serif; fill: #1d2228; } .small { font-size: 9px; fill: #5b6470; }
.label { font-weight: 600; } .grid { stroke: #dfe2e6; } .zero { stroke: #5b6470; }
path { stroke-width: 1.4; } path[stroke-width] { stroke-width: 4; opacity: .45; }
"""
CAPTION = (
    "points by which gaps and replay are ahead of as many random pairs",
    "thick: 95 % over images; thin: 95 % over seeds, where there are three or more",
)
STYLE_DARK = "text { fill: #e7e9ec; } .small { fill: #a8b0ba; } .grid { stroke: #333a43; } .zero { stroke: #a8b0ba; }"


def figure(leads: Mapping[str, Mapping[int, Value]]) -> str:
    """A whole SVG file for light and dark pages.

    Args:
        leads: In points, by the pool's name and the steps.
    """
    budgets = sorted({steps for by_steps in leads.values() for steps in by_steps})
    low, high = _range([value for by_steps in leads.values() for value in by_steps.values()])

    def x(points: float) -> float:
        return LEFT + 8 + (RIGHT - LEFT - 16) * (points - low) / (high - low)

    top, parts = 30.0, [_legend(budgets)]
    y = top
    for name, by_steps in leads.items():
        parts.append(element("text", name, x=LEFT, y=y + 12, class_="label"))
        for steps, value in sorted(by_steps.items()):
            parts.append(_lane(value, budgets.index(steps), y + 24, x))
            y += LANE
        y += 26
    axis = [_tick(points, x(points), top, y) for points in range(int(low), int(high) + 1, 2)]
    told = "; ".join(
        f"{name}: {', '.join(f'{steps} steps {value.score:+.1f}' for steps, value in by_steps.items())}"
        for name, by_steps in leads.items()
    )
    drawn = drawing(
        "picking",
        "When picking gaps pays: points by which gaps and replay are ahead of as many random pairs",
        f"Means over the seeds, thick lines 95 % intervals over images, thin ones over seeds. {told}.",
        y + 44,
        [
            element("style", _style()),
            *axis,
            *parts,
            *(_caption(line, y + 26 + 12 * place) for place, line in enumerate(CAPTION)),
        ],
        xmlns="http://www.w3.org/2000/svg",
    )
    return str(drawn)


def _range(values: Sequence[Value]) -> tuple[float, float]:
    """A range that holds all that is drawn, and 0."""
    ends = [end for value in values for end in (*value.images, *(_over_seeds(value) or ()))]
    return 2.0 * min(-1, floor(min(ends) / 2)), 2.0 * max(1, ceil(max(ends) / 2))


def _over_seeds(value: Value) -> tuple[float, float] | None:
    """The interval over seeds; of two seeds it says nothing but that they are two."""
    return value.seeds if value.of > 2 else None


def _style() -> str:
    def series(colours: Sequence[str]) -> str:
        return " ".join(f".s{place} {{ fill: {one}; stroke: {one}; }}" for place, one in enumerate(colours))

    lines = " ".join(f"path.s{place} {{ fill: none; }}" for place in range(len(COLOURS)))
    return f"{STYLE}{series(COLOURS)} @media (prefers-color-scheme: dark) {{ {STYLE_DARK} {series(DARK)} }} {lines}"


def _legend(budgets: Sequence[int]) -> str:
    entries = []
    for place, steps in enumerate(budgets):
        x = LEFT + 5 + 74 * place
        entries += [
            element("circle", cx=x, cy=9.0, r=4.0, class_=f"s{place}"),
            element("text", f"{steps} steps", x=x + 9, y=13.0),
        ]
    return element("g", *entries)


def _tick(points: int, x: float, top: float, bottom: float) -> str:
    line = element("line", x1=x, x2=x, y1=top, y2=bottom, class_="zero" if points == 0 else "grid")
    return element(
        "g",
        line,
        element("text", f"{points:+d}" if points else "0", x=x, y=bottom + 12, class_="small", text_anchor="middle"),
    )


def _caption(line: str, y: float) -> str:
    return element("text", line, x=(LEFT + RIGHT) / 2, y=y, class_="small", text_anchor="middle")


def _lane(value: Value, place: int, y: float, x: Callable[[float], float]) -> str:
    low, high = map(x, value.images)
    marks = [element("path", d=f"M{low:.1f} {y:.1f}H{high:.1f}", class_=f"s{place}", stroke_width=4)]
    if seeds := _over_seeds(value):
        low, high = map(x, seeds)
        marks.append(element("path", d=f"M{low:.1f} {y - 3:.1f}v6m0-3H{high:.1f}m0-3v6", class_=f"s{place}"))
    dot = element("circle", cx=x(value.score), cy=y, r=4.0, class_=f"s{place}")
    told = element("text", f"{value.of} seeds", x=RIGHT, y=y + 3, class_="small", text_anchor="end")
    return element("g", element("title", f"{value.score:+.2f}"), *marks, dot, told)
