"""Charts as inline SVG, built from text: no script, no plotting library.

Colours come from classes of the page's style sheet, so that light mode, dark mode and print need one drawing.
Lengths are SVG units; a drawing is 400 wide and scales with the page.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from markupsafe import Markup

from parityalign.core import Estimate, Scores, TaskScores, VerdictKind
from parityalign.report.tables import estimate_cell

WIDTH, LEFT, RIGHT = 400.0, 8.0, 392.0
LANE = 13.0
"""Vertical distance between two models' marks."""
SERIES = ("before", "after", "teacher")
WIDE_ENOUGH = 7.0
"""Width of one digit inside a bar."""


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """One SVG element; everything that is not markup is escaped. `font_size` is written `font-size`."""
    pairs = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    written = Markup("").join(Markup(' {}="{}"').format(name, _short(value)) for name, value in pairs)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), written, Markup("").join(children))


def score_chart(scores: Scores, *behind: Markup, margin: float = 0, **attributes: object) -> Markup:
    """For each task the student before and after and the teacher, as dots with 95 % whiskers, from 0 to 100.

    Args:
        scores: Of the run.
        behind: What the drawing begins with.
        margin, attributes: Of the drawing.
    """
    block, top = 3 * LANE + 27, 28.0
    bottom = top + block * len(scores.tasks)
    tasks = [_task_scores(name, task, top + block * i) for i, (name, task) in enumerate(scores.tasks.items())]
    told = "; ".join(f"{name}: {_in_words(task)}" for name, task in scores.tasks.items())
    return drawing(
        "scores",
        "Scores of the student before and after levelling, and of the teacher",
        f"Points from 0 to 100 with 95 % intervals. {told}.",
        bottom + 18,
        [*behind, _legend(), _axis(top, bottom), *tasks],
        margin=margin,
        **attributes,
    )


def verdict_chart(counts: Mapping[str, Mapping[VerdictKind, int]]) -> Markup:
    """For each task one bar of full width, cut by the share of each verdict.

    Args:
        counts: for each task, how many pairs have each verdict.
    """
    block = 46.0
    bars = [_stacked(name, counts[name], block * i) for i, name in enumerate(counts)]
    told = "; ".join(f"{name}: {_verdicts_in_words(of_task)}" for name, of_task in counts.items())
    return drawing("verdicts", "Verdicts for each task", f"{told}.", block * len(counts), bars)


def drawing(  # noqa: PLR0913 - an attribute is a parameter
    name: str,
    title: str,
    described: str,
    height: float,
    parts: Sequence[str],
    *,
    margin: float = 0,
    **attributes: object,
) -> Markup:
    """A drawing with a title and a description for screen readers; `name` is unique on the page.

    Args:
        name: Of the drawing, for the page's identifiers.
        title: In a few words.
        described: The same as the drawing, in sentences.
        height: In units.
        parts: The drawing.
        margin: Left free at the left and the right, in units.
        attributes: Of the `svg` element.
    """
    spoken = [
        element("title", title, id=f"{name}-title"),
        element("desc", described, id=f"{name}-desc"),
    ]
    return element(
        "svg",
        *spoken,
        *parts,
        viewBox=f"{-margin:.0f} 0 {WIDTH + 2 * margin:.0f} {height:.0f}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        **attributes,
    )


def _short(value: object) -> object:
    return f"{value:.1f}" if isinstance(value, float) else value


def _in_words(task: TaskScores) -> str:
    return ", ".join(f"{series} {estimate_cell(getattr(task, series))}" for series in SERIES)


def _verdicts_in_words(counts: Mapping[VerdictKind, int]) -> str:
    return ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in counts.items())


def _x(score: float) -> float:
    """The x position of a score between 0 and 100."""
    return LEFT + (RIGHT - LEFT) * min(max(score, 0.0), 100.0) / 100


def _legend() -> Markup:
    entries = []
    for series, x in zip(SERIES, (LEFT + 5, 92.0, 166.0), strict=True):
        entries += [_mark(series, x, 9.0), element("text", series, x=x + 9, y=13.0, class_="small")]
    return element("g", *entries)


def _axis(top: float, bottom: float) -> Markup:
    parts = []
    for score in range(0, 101, 20):
        x = _x(score)
        anchor = {0: "start", 100: "end"}.get(score, "middle")
        parts += [
            element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"),
            element("text", str(score), x=x, y=bottom + 13, class_="small", text_anchor=anchor),
        ]
    return element("g", *parts)


def _task_scores(name: str, task: TaskScores, top: float) -> Markup:
    lanes = [_estimate(series, getattr(task, series), top + 26 + LANE * lane) for lane, series in enumerate(SERIES)]
    label = element("text", name, x=LEFT, y=top + 15, class_="label")
    gain = f"{estimate_cell(task.gain, signed=True)} points" if task.gain else ""
    gained = element("text", gain, x=RIGHT, y=top + 15, class_="small", text_anchor="end")
    return element("g", label, gained, *lanes)


def _estimate(series: str, value: Estimate | None, y: float) -> Markup:
    if value is None:
        return Markup("")
    title = element("title", f"{series}: {estimate_cell(value)}")
    return element("g", title, _whisker(series, value, y), _mark(series, _x(value.score), y), _number(value, y))


def _number(value: Estimate, y: float) -> Markup:
    """The score next to its mark, on the side with room."""
    low, high = (_x(end) for end in value.ci or (value.score, value.score))
    score = f"{value.score:.1f}"
    if high > RIGHT - 40:
        return element("text", score, x=low - 9, y=y + 3.5, class_="small", text_anchor="end")
    return element("text", score, x=high + 9, y=y + 3.5, class_="small")


def _whisker(series: str, value: Estimate, y: float) -> Markup:
    if value.ci is None:
        return Markup("")
    low, high = _x(value.ci[0]), _x(value.ci[1])
    path = f"M{low:.1f} {y - 3:.1f}v6m0-3H{high:.1f}m0-3v6"
    return element("path", d=path, class_=f"whisker {series}")


def _mark(series: str, x: float, y: float) -> Markup:
    """A shape for each series, so that the chart can be read without colours."""
    if series == "teacher":
        return element("path", d=f"M{x:.1f} {y - 5:.1f}l5 5-5 5-5-5z", class_=f"mark {series}")
    return element("circle", cx=x, cy=y, r=4.5, class_=f"mark {series}")


def _stacked(name: str, counts: Mapping[VerdictKind, int], top: float) -> Markup:
    total = sum(counts.values())
    label = element("text", name, x=LEFT, y=top + 14, class_="label")
    pairs = element("text", f"{total:,} pairs", x=RIGHT, y=top + 14, class_="small", text_anchor="end")
    ends = list(accumulate(counts.values()))
    parts = [
        _segment(kind, count, _x(100 * (end - count) / total), _x(100 * end / total), top + 21)
        for (kind, count), end in zip(counts.items(), ends, strict=True)
        if count
    ]
    return element("g", label, pairs, *parts)


def _segment(kind: VerdictKind, count: int, x1: float, x2: float, y: float) -> Markup:
    written = f"{count:,}"
    bar = element("rect", x=x1, y=y, width=x2 - x1, height=18.0, class_=f"verdict {kind}")
    title = element("title", f"{kind.replace('_', ' ')}: {written}")
    if x2 - x1 < WIDE_ENOUGH * (len(written) + 1):
        return element("g", title, bar)
    inside = element("text", written, x=(x1 + x2) / 2, y=y + 13, class_="inside", text_anchor="middle")
    return element("g", title, bar, inside)
