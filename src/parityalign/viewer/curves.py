"""Curves of a training as inline SVG: the loss on the training pairs as a line, on the held-out ones as dots."""

from collections.abc import Mapping

from markupsafe import Markup

from parityalign.core import HELD_OUT_LOSS, TRAINING_LOSS
from parityalign.report import drawing, element

WIDTH, HEIGHT = 400.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 34.0, 392.0, 22.0, 128.0
SERIES = (TRAINING_LOSS, HELD_OUT_LOSS)


def curve_chart(curves: Mapping[str, Mapping[int, float]]) -> Markup | None:
    """The losses by optimiser step; None where there is none."""
    known = {name: sorted(curves[name].items()) for name in SERIES if curves.get(name)}
    every = [value for of in known.values() for _, value in of]
    if not every:
        return None
    steps = max(1, max(step for of in known.values() for step, _ in of))
    low, high = min(0.0, *every), max(every)

    def at(step: int, value: float) -> tuple[float, float]:
        share = (value - low) / ((high - low) or 1.0)
        return LEFT + (RIGHT - LEFT) * step / steps, BOTTOM - (BOTTOM - TOP) * share

    parts = [_axis(low, high, steps), _legend(list(known))]
    for name, of in known.items():
        points = [at(step, value) for step, value in of]
        parts.append(_line(name, points))
        if name == HELD_OUT_LOSS:
            parts += [_dot(f"{name} after {step:,} steps: {value:.4g}", *at(step, value)) for step, value in of]
    told = "; ".join(f"{name}: from {of[0][1]:.3g} to {of[-1][1]:.3g}" for name, of in known.items())
    return drawing("curves", "Losses of the training", f"By optimiser step, up to {steps:,}. {told}.", HEIGHT, parts)


def _axis(low: float, high: float, steps: int) -> Markup:
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = BOTTOM - (BOTTOM - TOP) * share
        parts += [
            element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"),
            element(
                "text", f"{low + (high - low) * share:.3g}", x=LEFT - 5, y=y + 3.5, class_="small", text_anchor="end"
            ),
        ]
    parts.append(element("text", f"{steps:,} steps", x=RIGHT, y=BOTTOM + 14, class_="small", text_anchor="end"))
    parts.append(element("text", "0", x=LEFT, y=BOTTOM + 14, class_="small"))
    return element("g", *parts)


def _legend(names: list[str]) -> Markup:
    parts, x = [], LEFT
    for name in names:
        parts += [
            element("line", x1=x, x2=x + 14, y1=9.0, y2=9.0, class_=_class(name)),
            element("text", name, x=x + 19, y=12.5, class_="small"),
        ]
        x += 110
    return element("g", *parts)


def _line(name: str, points: list[tuple[float, float]]) -> Markup:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return element("path", d=path, class_=_class(name))


def _dot(told: str, x: float, y: float) -> Markup:
    return element("circle", element("title", told), cx=x, cy=y, r=3.0, class_="dot")


def _class(name: str) -> str:
    return f"curve {name.split()[0]}"
