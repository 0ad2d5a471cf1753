"""Duplicate images: same bytes, same pixels, or copies (re-encoded, resized).

A 64-bit perceptual hash (signs of the lowest cosine frequencies) and a gist of 4 x 4 grey values find candidates;
the pixels of both pictures decide. Charts and signs with the same layout differ somewhere by far more than JPEG noise,
however similar they are as a whole, so the criterion is the largest difference between small cells.
The limits were measured on the embedded worlds: see `docs/log.md`.
"""

import hashlib
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from parityalign.data import bands, image_id

Array = NDArray[Any]

HASH_BITS_APART = 10
"""Largest Hamming distance (of 64 bits) of a candidate."""
GIST_LEVELS_APART = 9
"""Largest difference (of 256 levels) at each of the 16 cells of the gist of a candidate."""
GIST_BYTES = 16
FINE_CELL, COARSE_CELL = 2, 8
"""Sides in pixels of the cells that are compared: small ones for brightness, large ones for colour."""
FINE_LEVELS, FINE_LEVELS_RESIZED, COARSE_LEVELS = 34, 48, 30
"""Largest difference of a cell, of 256 levels. Resizing shifts edges by fractions of a pixel, so it is allowed more."""
GRAIN_LEVELS, GRAIN_PEAK = 12, 6
"""Up to this root mean square a difference is grain lost in a JPEG, if no cell differs by more than this multiple of
it: grain is uniform over the picture, a different digit is not."""
_LARGEST = 2048
"""Longest side at which pictures are compared, in pixels."""
_HASH_SIDE, _HASH_FREQUENCIES = 32, 8


class Look(NamedTuple):
    """Hashes of a picture, to find copies of it."""

    image_id: str
    """Hash of the file's bytes."""
    pixels: str
    """Hash of the pixels, independent of the file: 32 hex digits."""
    hash: int
    """Perceptual hash of 64 bits; similar pictures differ in few."""
    gist: bytes
    """Grey values, row by row."""

    @property
    def likeness(self) -> str:
        """Hash and gist as hex digits."""
        return f"{self.hash:016x}{self.gist.hex()}"

    @classmethod
    def kept(cls, image: str, pixels: str, likeness: str) -> Self:
        """The look of an accepted image, from its record."""
        return cls(image, pixels, int(likeness[:16], 16), bytes.fromhex(likeness[16:]))


def look_at(content: bytes, image: Image.Image) -> Look:
    """The look of an RGB picture, with the content of its file."""
    pixels = hashlib.sha256(f"{image.size}".encode())
    for band in bands(image):
        pixels.update(band.tobytes())
    grey = image.convert("L")
    return Look(
        image_id(content),
        pixels.hexdigest()[:32],
        _hash(grey),
        grey.resize((4, 4), Image.Resampling.BILINEAR).tobytes(),
    )


def same_picture(one: Image.Image, other: Image.Image) -> bool:
    """Whether two RGB pictures are copies of one another, possibly resized or re-encoded."""
    if not _same_shape(one.size, other.size):
        return False
    size = min(one.size, other.size, key=lambda size: (size[0] * size[1], size))
    shrink = min(1.0, _LARGEST / max(size))
    size = (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink)))
    pair = [image if image.size == size else image.resize(size, Image.Resampling.LANCZOS) for image in (one, other)]
    if np.abs(_difference(pair, "RGB", COARSE_CELL)).max() > COARSE_LEVELS:
        return False
    fine = np.abs(_difference(pair, "L", FINE_CELL))
    levels = FINE_LEVELS if one.size == other.size else FINE_LEVELS_RESIZED
    return bool(fine.max() <= max(levels, _peak_of_grain(fine)))


def _peak_of_grain(difference: Array) -> float:
    """The largest difference that grain of this strength may have; 0 if it is not grain."""
    strength = float(np.sqrt(np.mean(difference.astype(np.float64) ** 2)))
    return GRAIN_PEAK * strength if strength <= GRAIN_LEVELS else 0


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size is the other times a factor, up to rounding to whole pixels."""
    (width, height), (small_width, small_height) = sorted((one, other), reverse=True)
    return abs(small_width * height / width - small_height) <= 1 + small_height / 100


def _difference(pair: list[Image.Image], mode: str, side: int) -> Array:
    """The difference of two pictures in cells of `side` pixels; levels of 256, (rows, columns[, colours])."""
    width, height = pair[0].size
    cells = (-(-width // side), -(-height // side))
    one, other = (
        np.asarray(image.convert(mode).resize(cells, Image.Resampling.BILINEAR), dtype=np.int16) for image in pair
    )
    return one - other


def _hash(grey: Image.Image) -> int:
    waves = _waves()
    values = np.asarray(grey.resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BILINEAR), dtype=np.float64)
    lowest = (waves @ values @ waves.T).ravel()
    lowest[0] = 0  # the mean brightness says nothing about the picture
    # Rounded, so that the sign of a value that is zero up to the last bits does not depend on the processor.
    lowest = lowest.round(3)
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes(), "big")


@cache
def _waves() -> Array:
    """The lowest rows of the cosine transform (DCT-II, orthonormal): (frequencies, side)."""
    places = np.arange(_HASH_SIDE) + 0.5
    rows: Array = np.cos(np.pi / _HASH_SIDE * np.arange(_HASH_FREQUENCIES)[:, None] * places) * np.sqrt(2 / _HASH_SIDE)
    rows[0] /= np.sqrt(2)
    return rows
