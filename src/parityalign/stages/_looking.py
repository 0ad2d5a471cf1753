"""Reads, decodes and hashes the images of sources, several at a time."""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import PurePath
from typing import NamedTuple

from parityalign.core import Found, usable_cores
from parityalign.data import FIRST_FRAME, OTHER_FORMAT, Picture, Unfit, open_picture
from parityalign.stages._likeness import Look, look_at

MIN_SIDE_PIXELS = 8
MAX_ASPECT = 200
"""Longer side over shorter side; some families' processors refuse more."""

_ENDINGS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
}
"""Suffixes of each format, the usual one first."""


class Looked(NamedTuple):
    """What is known of a valid picture after decoding."""

    found: Found
    look: Look
    size: tuple[int, int]
    """Width and height in pixels, upright."""
    ending: str
    """The usual suffix of its format, such as `.png`."""
    notes: tuple[str, ...]


def hands() -> Executor:
    """What looks at several pictures at a time: decoding leaves Python's lock to others."""
    return ThreadPoolExecutor(max_workers=min(8, usable_cores()))


def look_through(offered: Sequence[Found], executor: Executor) -> list[Looked | Unfit]:
    """Each offered image, in order, or why it is unusable."""
    return list(executor.map(_looked, offered))


def check_shape(size: tuple[int, int]) -> None:
    """Checks that every model family can process a picture of this size.

    Raises:
        Unfit: It is too small or too thin.
    """
    short, long = sorted(size)
    if short < MIN_SIDE_PIXELS:
        raise Unfit("too_small", f"{size[0]} x {size[1]} pixels")
    if long > MAX_ASPECT * short:
        raise Unfit("too_thin", f"{size[0]} x {size[1]} pixels")


def _looked(found: Found) -> Looked | Unfit:
    try:
        content = found.read()
        picture = open_picture(content)
    except Unfit as unfit:
        return unfit
    endings = _ENDINGS[picture.format]
    ending = PurePath(found.name).suffix.lower()
    return Looked(
        found=found,
        look=look_at(content, picture.image),
        size=picture.image.size,
        ending=ending if ending in endings else endings[0],
        notes=tuple(_notes(picture, named_otherwise=found.path is not None and ending not in endings)),
    )


def _notes(picture: Picture, *, named_otherwise: bool) -> list[str]:
    return [FIRST_FRAME] * picture.several + [OTHER_FORMAT] * named_otherwise
