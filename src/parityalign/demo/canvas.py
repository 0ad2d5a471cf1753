"""Shared by the four worlds: pictures with facts, colours, fonts and placed text.

Pictures are `SIDE` x `SIDE` pixels. Their fonts are bundled (`fonts/`: DejaVu and STIX as matplotlib ships them, with
their licences): the bundled models learnt to read these, and the demo needs no other package for them.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

_FONTS = Path(__file__).parent / "fonts"
SIDE = 128

COLOURS = {
    "red": (208, 32, 36),
    "blue": (36, 72, 200),
    "green": (26, 138, 54),
    "orange": (240, 140, 10),
    "purple": (132, 44, 160),
    "black": (24, 24, 24),
}
PALE = ((250, 250, 250), (255, 246, 214), (222, 238, 252), (226, 246, 226), (244, 228, 240), (232, 232, 232))

NUMBERS = tuple(str(number) for number in sorted({*range(5, 100, 5), 7, 12, 24, 36, 42, 64, 88, 99}))
"""The numbers on signs, labels and buses; few enough for a small model to read each as a whole."""

FACES = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSansMono-Bold.ttf",
    "STIXGeneralBol.ttf",
)


class Fact(NamedTuple):
    """A question with an answer from the picture, or from knowledge of its object."""

    kind: str
    question: str
    answer: str
    subject: str = ""
    """The word or object needed to answer; a student trained on less does not know all of them."""
    because: str = ""
    """The rationale, in words that questions and answers have too."""


def because(text: str, facts: Iterable[Fact]) -> list[Fact]:
    """The facts, with the text as rationale of those that have none."""
    return [fact if fact.because else fact._replace(because=text) for fact in facts]


class Drawing(NamedTuple):
    """A drawn image, every fact that is true of it, and what an eye should notice in it."""

    image: Image.Image
    facts: tuple[Fact, ...]
    sights: tuple[str, ...]
    """Short phrases that bind objects to positions and colours: pretraining targets of the vision tower."""


def one_of_each_kind(facts: Sequence[Fact], rng: Random) -> list[Fact]:
    """One fact of every kind, in random order, so that kinds with many facts do not dominate."""
    by_kind: dict[str, list[Fact]] = {}
    for fact in facts:
        by_kind.setdefault(fact.kind, []).append(fact)
    return [rng.choice(by_kind[kind]) for kind in rng.sample(sorted(by_kind), len(by_kind))]


@cache
def font(face: str, size: int) -> ImageFont.FreeTypeFont:
    """A bundled font by file name; size in pixels."""
    return ImageFont.truetype(str(_FONTS / face), size)


def fitting_font(rng: Random, text: str, width: int, smallest: int = 17, largest: int = 28) -> ImageFont.FreeTypeFont:
    """A font of random face, as large as a random size and the given width (pixels) allow."""
    face = rng.choice(FACES)
    size = rng.randint(smallest + 2, largest)
    while size > smallest and font(face, size).getlength(text) > width:
        size -= 1
    return font(face, size)


def backdrop(rng: Random) -> Image.Image:
    """An empty picture with a soft vertical shade."""
    top, bottom = rng.choice(PALE), rng.choice(PALE)
    strip = Image.new("RGB", (1, 2))
    strip.putdata([top, bottom])
    return strip.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def write(
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    text: str,
    face: ImageFont.FreeTypeFont,
    *,
    fill: tuple[int, int, int],
    anchor: str = "mm",
) -> None:
    """Writes text around a point (pixels)."""
    draw.text(centre, text, font=face, fill=fill, anchor=anchor)


def weathered(image: Image.Image, rng: Random) -> Image.Image:
    """The picture as from a camera: slightly rotated, lighter or darker, with grain."""
    turned = image.rotate(rng.uniform(-5, 5), Image.Resampling.BILINEAR, fillcolor=image.getpixel((0, 0)))
    grain = Image.frombytes("L", (SIDE // 2, SIDE // 2), rng.randbytes(SIDE * SIDE // 4)).resize((SIDE, SIDE))
    light = rng.uniform(0.85, 1.0)
    grey = Image.merge("RGB", (grain, grain, grain))
    return Image.blend(turned, grey, rng.uniform(0.0, 0.06)).point(lambda value: round(value * light))
