"""The only module that opens images, so that intake, models and the report see the same pixels, within limits.

An image is decoded completely, which is the only way to find a truncated file; rotated by its EXIF orientation;
converted to 8-bit RGB, with deeper images scaled rather than clipped; and composited on white if it is transparent.
Of several frames or pages the first is used. The format is detected from the content, not from the file name.
"""

import errno
import hashlib
import re
import struct
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from parityalign.core import read_given

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are read. Pillow's others are not photographs, or run other programs (EPS)."""
MAX_BYTES = 256 * 2**20
"""Larger files are not read: they are videos rather than photographs."""
MAX_SCANS = 100
"""A JPEG of more scans is refused: cameras write up to ten, and each takes as long as all pixels do."""
MAX_SECONDS = 60
"""Decoding one picture for longer is given up; the largest take a few seconds."""
MAX_READS = 2_000_000
"""A file of more parts is refused: each takes memory, even if it is empty."""
FIRST_FRAME = "first_frame"
"""Note on an image that is the first of several frames or pages."""
OTHER_FORMAT = "other_format"
"""Note on an image whose file name has another format's suffix."""

_LARGE = 2**23
"""From this number of pixels on, one picture is decoded at a time: the largest take up to 0.9 GB."""
_BAND = 2**20
"""Pixels that are converted at a time, where a conversion makes copies."""
_DEPTHS = tuple(float(2**bits - 1) for bits in (8, 10, 12, 14, 16))
"""Largest values of cameras, scanners and microscopes, all of which are stored in 16 bits."""
_large = Lock()

# Pillow's decoders raise all of these on broken files.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")
"""A marker of a JPEG with a length behind it, or its end; in the data of a scan there is none."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9

_HEIC, _AVIF, _VIDEO = "HEIC", "AVIF", "a video"
_BRANDS = {b"heic": _HEIC, b"heix": _HEIC, b"hevc": _HEIC, b"heim": _HEIC, b"heis": _HEIC, b"mif1": _HEIC}
_BRANDS |= {b"msf1": _HEIC, b"avif": _AVIF, b"avis": _AVIF, b"crx ": "Canon raw"}
_BEGINNINGS = {
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"\x1aE\xdf\xa3": _VIDEO,
}


class Unfit(Exception):
    """A file is not a usable image.

    Attributes:
        reason: A reason code.
        detail: The decoder's message, or what else helps to fix the file.
    """

    def __init__(self, reason: str, detail: object = "") -> None:
        """Takes the reason and the detail."""
        super().__init__(reason)
        self.reason = reason
        self.detail = str(detail)

    def __str__(self) -> str:
        """The reason and the detail in words."""
        return f"{self.reason.replace('_', ' ')}{f' ({self.detail})' if self.detail else ''}"


class Picture(NamedTuple):
    """An image as models see it."""

    image: Image.Image
    """Upright, 8-bit RGB."""
    format: str
    """The file's format, such as `PNG`."""
    several: bool
    """Whether the file has several frames or pages; `image` is the first."""


def image_id(content: bytes) -> str:
    """The identity of an image file: the first 32 hex digits of the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()[:32]


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        Unfit: It is not a file, cannot be read, or is too large to be an image.
    """
    try:
        return read_given(path, MAX_BYTES)
    except OSError as problem:
        reason = "too_large" if problem.errno == errno.EFBIG else "unreadable"
        raise Unfit(reason, problem.strerror) from problem
    except ValueError as problem:  # a name with a NUL in it
        raise Unfit("unreadable", problem) from problem


def open_picture(content: bytes) -> Picture:
    """Decodes a file's content.

    Raises:
        Unfit: It is not an image, is broken, or would take too much time or memory.
    """
    if not content:
        raise Unfit("empty_file")
    _refuse_scans(content)
    try:
        file = _identified(content)
        if file.width * file.height < _LARGE:
            return _decoded(file)
        with _large:
            return _decoded(file)
    except _TooMuch as problem:
        raise Unfit("too_slow", problem) from problem


def bands(image: Image.Image) -> Iterator[Image.Image]:
    """An image in pieces of its full width, from the top, so that what is made of them takes little memory."""
    height = max(1, _BAND // max(1, image.width))
    for top in range(0, image.height, height):
        yield image.crop((0, top, image.width, min(image.height, top + height)))


def read_picture(path: Path) -> Image.Image:
    """Opens the image in a file.

    Raises:
        Unfit: There is no such file, or it is not a valid image.
    """
    return open_picture(read_bytes(path)).image


class _TooMuch(Exception):
    """A decoder reads for too long, or too many parts; no decoder takes it for a broken file."""


class _Bounded(BytesIO):
    """A file's content that decoders of this thread can read until they have computed for a limited time.

    By the clock, a sound picture would be refused where the machine is busy, or where the process was stopped.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._until = time.thread_time() + MAX_SECONDS
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise _TooMuch(f"it consists of more than {MAX_READS:,} parts")
        if time.thread_time() > self._until:
            raise _TooMuch(f"decoding it takes more than {MAX_SECONDS} seconds")
        return super().read(size)


def _identified(content: bytes) -> Image.Image:
    try:
        file = Image.open(_Bounded(content), formats=FORMATS)
        pixels = file.width * file.height
    except UnidentifiedImageError as problem:
        if content.startswith(b"version https://git-lfs"):
            raise Unfit("not_an_image", "it is a pointer of Git LFS; run: git lfs pull") from problem
        other = _other_format(content)
        if other:
            raise Unfit("unsupported_format", f"it is {other}; convert it to JPEG or PNG") from problem
        raise Unfit("not_an_image") from problem
    except Image.DecompressionBombError as problem:
        raise Unfit("too_large", problem) from problem
    except _DECODER_ERRORS as problem:
        raise Unfit("not_an_image", problem) from problem
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise Unfit("too_large", f"{pixels} pixels")
    return file


def _other_format(content: bytes) -> str:
    """What a file is that is in none of our formats, as far as its first bytes tell; empty if they do not."""
    if content[4:8] == b"ftyp":
        return _BRANDS.get(content[8:12], _VIDEO)
    return next((name for beginning, name in _BEGINNINGS.items() if content.startswith(beginning)), "")


def _refuse_scans(content: bytes) -> None:
    """Counts the scans of a JPEG up to its end; what phones append (a second image, a video) is not looked at."""
    place = parts = scans = 0
    while content.startswith(b"\xff\xd8") and (found := _MARKER.search(content, place)):
        marker, place = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return
        place += int.from_bytes(content[place : place + 2], "big")
        parts += 1
        scans += marker == _START_OF_SCAN
        if scans > MAX_SCANS or parts > MAX_READS:
            raise Unfit("too_slow", f"a JPEG of more than {MAX_SCANS} scans or {MAX_READS:,} parts")


def _decoded(file: Image.Image) -> Picture:
    with file:
        # Phones append a small second image to a JPEG (Pillow: MPO); that does not make it a video.
        kind = "JPEG" if file.format == "MPO" else file.format or ""
        try:
            several = file.format != "MPO" and bool(getattr(file, "is_animated", False))
            file.seek(0)
            file.load()
        except Image.DecompressionBombError as problem:
            raise Unfit("too_large", problem) from problem
        except _DECODER_ERRORS as problem:
            raise Unfit("truncated", problem) from problem
        try:
            return Picture(_as_rgb(_upright(file)), kind, several)
        except _DECODER_ERRORS as problem:
            raise Unfit("unsupported_colours", f"{file.mode}: {problem}") from problem


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1  # else Pillow would make a copy
        return ImageOps.exif_transpose(image) if turned else image
    except _DECODER_ERRORS:  # a broken EXIF block does not invalidate the pixels
        return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _in_8_bits(image)
    if not image.has_transparency_data:
        turned = image.mode == "RGB" and not isinstance(image, ImageFile.ImageFile)  # no file is kept with it
        return image if turned else image.convert("RGB")
    return _joined((_on_white(band) for band in bands(image)), "RGB", image.size)


def _on_white(image: Image.Image) -> Image.Image:
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")


def _in_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 or 32 bits per pixel, scaled to 8; Pillow's own conversion would clip it.

    Files of these modes hold floats up to 1 or up to 255, integers of as many bits as the camera has (12 of a
    microscope's 16), or measurements of any range.
    """
    most = max(float(_values(band).max()) for band in bands(image))
    tops = (1.0, 255.0) if image.mode == "F" else _DEPTHS
    top = next((top for top in tops if most <= top), most)
    scaled = (Image.fromarray((_values(band) / top * 255).round().astype(np.uint8)) for band in bands(image))
    return _joined(scaled, "L", image.size)


def _values(image: Image.Image) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.nan_to_num(np.asarray(image, dtype=np.float32)).clip(min=0)


def _joined(pieces: Iterator[Image.Image], mode: str, size: tuple[int, int]) -> Image.Image:
    """One image of pieces of its full width, from the top."""
    whole = Image.new(mode, size)
    top = 0
    for piece in pieces:
        whole.paste(piece, (0, top))
        top += piece.height
    return whole
