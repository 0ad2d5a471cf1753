"""The `chartqa` world: bars upright and lying, lines and pies, with titles, axes and legends."""

from collections.abc import Sequence
from math import cos, radians, sin
from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw

from parityalign.demo.canvas import COLOURS, SIDE, Drawing, Fact, because, font, write

CATEGORIES = "mon tue wed thu fri sat sun usa uk eu tv web may oct".split()
TITLES = "sales rain visitors prices votes energy tourism exports profit traffic wages growth".split()
_INK = (30, 30, 30)
_GRID = (205, 205, 205)
_BOLD = "DejaVuSans-Bold.ttf"


class Series(NamedTuple):
    """What a chart shows."""

    labels: tuple[str, ...]
    values: tuple[int, ...]
    """Distinct, so that the highest and the lowest are unique."""
    colours: tuple[str, ...]
    top: int
    """The maximum of the axis: 50 or 100."""


def draw_chart(rng: Random) -> Drawing:
    """One chart of a random kind."""
    return rng.choice((_upright, _upright, _lying, _line, _pie))(rng)


def _series(rng: Random, count: int) -> Series:
    top = rng.choice((50, 100))
    values = tuple(top // 10 * level for level in rng.sample(range(1, 11), count))
    many = rng.random() < 0.7
    palette = rng.sample(tuple(COLOURS), count) if many else [rng.choice(tuple(COLOURS))] * count
    return Series(tuple(rng.sample(CATEGORIES, count)), values, tuple(palette), top)


def _sheet(rng: Random) -> tuple[Image.Image, ImageDraw.ImageDraw, str]:
    image = Image.new("RGB", (SIDE, SIDE), rng.choice(((255, 255, 255), (250, 250, 244), (242, 246, 250))))
    draw = ImageDraw.Draw(image)
    title = rng.choice(TITLES)
    write(draw, (SIDE / 2 + rng.randint(-8, 8), 9), title, font(_BOLD, 13), fill=_INK)
    return image, draw, title


def _upright(rng: Random) -> Drawing:
    series = _series(rng, rng.randint(3, 4))
    image, draw, title = _sheet(rng)
    left, floor, ceiling = 26, 110, 30
    _value_axis(draw, series.top, left, floor, ceiling)
    slot = (126 - left) / len(series.values)
    half = rng.uniform(0.28, 0.42) * slot
    printed = rng.random() < 0.4
    for place, (label, value, colour) in enumerate(zip(series.labels, series.values, series.colours, strict=True)):
        x, y = left + slot * (place + 0.5), floor - (floor - ceiling) * value / series.top
        draw.rectangle((x - half, y, x + half, floor), fill=COLOURS[colour])
        write(draw, (x, 118), label, font(_BOLD, 11), fill=_INK)
        if printed:
            write(draw, (x, y - 6), str(value), font(_BOLD, 10), fill=_INK)
    return _picture(image, series, title, "bar", rng)


def _value_axis(draw: ImageDraw.ImageDraw, top: int, left: int, floor: int, ceiling: int) -> None:
    for share in (0, 0.5, 1):
        y = floor - (floor - ceiling) * share
        draw.line((left, y, 126, y), fill=_GRID)
        write(draw, (left - 2, y), str(round(top * share)), font("DejaVuSans.ttf", 10), fill=_INK, anchor="rm")


def _lying(rng: Random) -> Drawing:
    series = _series(rng, rng.randint(3, 5))
    image, draw, title = _sheet(rng)
    left, right, top, bottom = 36, 122, 20, 114
    for share in (0, 0.5, 1):
        x = left + (right - left) * share
        draw.line((x, top, x, bottom), fill=_GRID)
        write(draw, (min(x, 118), 121), str(round(series.top * share)), font("DejaVuSans.ttf", 10), fill=_INK)
    slot = (bottom - top) / len(series.values)
    half = rng.uniform(0.28, 0.42) * slot
    for place, (label, value, colour) in enumerate(zip(series.labels, series.values, series.colours, strict=True)):
        y, x = top + slot * (place + 0.5), left + (right - left) * value / series.top
        draw.rectangle((left, y - half, x, y + half), fill=COLOURS[colour])
        write(draw, (left - 3, y), label, font(_BOLD, 11), fill=_INK, anchor="rm")
    return _picture(image, series, title, "bar", rng)


def _line(rng: Random) -> Drawing:
    series = _series(rng, rng.randint(3, 4))
    colour = series.colours[0]
    series = series._replace(colours=(colour,) * len(series.values))
    image, draw, title = _sheet(rng)
    left, floor, ceiling = 26, 110, 30
    _value_axis(draw, series.top, left, floor, ceiling)
    slot = (126 - left) / len(series.values)
    points = [
        (left + slot * (place + 0.5), floor - (floor - ceiling) * value / series.top)
        for place, value in enumerate(series.values)
    ]
    draw.line(points, fill=COLOURS[colour], width=rng.randint(2, 3))
    for (x, y), label in zip(points, series.labels, strict=True):
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=COLOURS[colour])
        write(draw, (x, 118), label, font(_BOLD, 11), fill=_INK)
    return _picture(image, series, title, "point", rng)


def _pie(rng: Random) -> Drawing:
    count = rng.randint(2, 4)
    values = _tenths(rng, count)
    series = Series(tuple(rng.sample(CATEGORIES, count)), values, tuple(rng.sample(tuple(COLOURS), count)), 100)
    image, draw, title = _sheet(rng)
    box = (3, 30, 83, 110)
    angle = -90.0
    printed = rng.random() < 0.6
    for place, (label, value, colour) in enumerate(zip(series.labels, series.values, series.colours, strict=True)):
        end = angle + 3.6 * value
        draw.pieslice(box, angle, end, fill=COLOURS[colour], outline=(255, 255, 255))
        if printed:
            middle = radians((angle + end) / 2)
            write(
                draw,
                (43 + 26 * cos(middle), 70 + 26 * sin(middle)),
                str(value),
                font(_BOLD, 11),
                fill=(255, 255, 255),
            )
        angle = end
        y = 40 + 20 * place
        draw.rectangle((88, y - 4, 96, y + 4), fill=COLOURS[colour])
        write(draw, (99, y), label, font(_BOLD, 11), fill=_INK, anchor="lm")
    return _picture(image, series, title, "slice", rng)


def _tenths(rng: Random, count: int) -> tuple[int, ...]:
    """Distinct multiples of ten, from 10 up, that sum to 100."""
    while True:
        parts = rng.sample(range(10, 100, 10), count - 1)
        rest = 100 - sum(parts)
        if rest >= 10 and rest not in parts:
            return (*parts, rest)


def _picture(image: Image.Image, series: Series, title: str, mark: str, rng: Random) -> Drawing:
    values = " and ".join(f"{label} is {value}" for label, value in zip(series.labels, series.values, strict=True))
    told = [*_lookups(series, mark), *_extremes(series), *_comparisons(series, rng)]
    facts = [
        Fact("title", "What is the title of the chart?", title, title, f"{title} is written at the top"),
        Fact("count", f"How many {mark}s are there?", str(len(series.values)), because=" and ".join(series.labels)),
        *because(values, told),
    ]
    sights = [f"title {title}", f"{len(series.values)} {mark}s", f"top {series.top}"]
    sights += [f"{label} {value}" for label, value in zip(series.labels, series.values, strict=True)]
    sights += [f"place {place} {label}" for place, label in enumerate(series.labels)]
    sights += [f"{mark} {place} {value * 10 // series.top}" for place, value in enumerate(series.values)]
    if mark != "point" and len(set(series.colours)) > 1:
        sights += [f"{colour} {mark} {value}" for colour, value in zip(series.colours, series.values, strict=True)]
        sights += [f"{colour} {label}" for colour, label in zip(series.colours, series.labels, strict=True)]
    return Drawing(image, tuple(facts), tuple(sights))


def _lookups(series: Series, mark: str) -> list[Fact]:
    facts = [
        Fact(f"lookup_{mark}", f"What is the value of {label}?", str(value), label)
        for label, value in zip(series.labels, series.values, strict=True)
    ]
    if mark != "point" and len(set(series.colours)) > 1:
        for label, value, colour in zip(series.labels, series.values, series.colours, strict=True):
            bound = [
                Fact("colour", f"What color is the {mark} of {label}?", colour, label),
                Fact("by_colour", f"What is the value of the {colour} {mark}?", str(value), colour),
            ]
            facts += because(f"{label} is the {colour} {mark} of {value}", bound)
    return facts


def _extremes(series: Series) -> list[Fact]:
    high, low = max(series.values), min(series.values)
    return [
        Fact("highest", "Which category has the highest value?", series.labels[series.values.index(high)]),
        Fact("lowest", "Which category has the lowest value?", series.labels[series.values.index(low)]),
        Fact("highest_value", "What is the highest value?", str(high)),
        Fact("lowest_value", "What is the lowest value?", str(low)),
    ]


def _comparisons(series: Series, rng: Random) -> list[Fact]:
    first, second = rng.sample(range(len(series.values)), 2)
    return _compared(dict(zip(series.labels, series.values, strict=True)), series.labels[first], series.labels[second])


def _compared(values: dict[str, int], first: str, second: str) -> list[Fact]:
    low, high = sorted((first, second), key=values.__getitem__)
    return [
        Fact("greater", f"Is {first} greater than {second}?", "Yes" if values[first] > values[second] else "No"),
        Fact("difference", f"What is the difference between {high} and {low}?", str(values[high] - values[low])),
    ]


def implied(facts: Sequence[Fact]) -> list[Fact]:
    """All comparisons and differences that follow from a chart's values; a picture lists one of each."""
    values = {fact.subject: int(fact.answer) for fact in facts if fact.kind.startswith("lookup_")}
    pairs = [(first, second) for first in values for second in values if first != second]
    both = [fact for first, second in pairs for fact in _compared(values, first, second)]
    turned = [
        Fact(fact.kind, f"What is the difference between {first} and {second}?", fact.answer)
        for first, second in pairs
        for fact in _compared(values, first, second)
        if fact.kind == "difference"
    ]
    return [*both, *turned]
