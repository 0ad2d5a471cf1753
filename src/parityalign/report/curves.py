"""Curves of a training as inline SVG: losses by optimiser step, and how fast it went; read from the run's events."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from parityalign.core import EXAMPLES_A_SECOND, GPU_BUSY, HELD_OUT_LOSS, LEARNING_RATE, MEASURED, TRAINING_LOSS
from parityalign.report.charts import drawing, element

HEIGHT = 150.0
LEFT, RIGHT, TOP, BOTTOM = 42.0, 392.0, 22.0, 128.0
_PANELS: Mapping[str, tuple[str, ...]] = {
    "losses of the training": (TRAINING_LOSS, HELD_OUT_LOSS),
    EXAMPLES_A_SECOND: (EXAMPLES_A_SECOND,),
    GPU_BUSY: (GPU_BUSY,),
    LEARNING_RATE: (LEARNING_RATE,),
}
"""What is drawn together, by title."""
_TOO_LARGE = 1e15
"""No number of a training is."""

Curves = Mapping[str, Mapping[int, float]]
"""What was measured, by name and step."""


def events_in(path: Path) -> Iterator[Mapping[str, Any]]:
    """The events of a run as they lie; what is no event is passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):  # a torn line
            continue
        if isinstance(event, dict):
            yield event


def curves_in(events: Iterable[Mapping[str, Any]]) -> Curves:
    """What the last training of the run's own student measured; of a step that a resumed one repeats, the last time."""
    curves: dict[str, dict[int, float]] = {}
    ended = False
    for event in events:
        if event.get("stage") == "level" and event.get("event") == "finished":
            ended = True
        elif event.get("event") == MEASURED and str(event.get("what")).startswith("level "):
            if ended:  # another training begins
                curves, ended = {}, False
            step, value = event.get("step"), event.get("value")
            if isinstance(step, int) and isinstance(value, int | float) and abs(value) < _TOO_LARGE:
                curves.setdefault(str(event["what"]).removeprefix("level "), {})[step] = float(value)
    return curves


def curve_charts(curves: Curves) -> list[Markup]:
    """The losses, and below them how fast it went and at which rate; what was not measured has no drawing."""
    found = []
    for title, names in _PANELS.items():
        known = {name: sorted(curves[name].items()) for name in names if curves.get(name)}
        if known:
            found.append(_panel(title, known))
    return found


def _panel(title: str, known: Mapping[str, Sequence[tuple[int, float]]]) -> Markup:
    every = [value for of in known.values() for _, value in of]
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
    described = f"By optimiser step, up to {steps:,}. {told}."
    return drawing(f"curve-{title.split()[0]}", f"{title[0].upper()}{title[1:]}", described, HEIGHT, parts)


def _axis(low: float, high: float, steps: int) -> Markup:
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = BOTTOM - (BOTTOM - TOP) * share
        value = f"{low + (high - low) * share:.3g}"
        parts += [
            element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"),
            element("text", value, x=LEFT - 5, y=y + 3.5, class_="small", text_anchor="end"),
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
