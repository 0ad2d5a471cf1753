"""The only module that opens images, so that intake, models and the report see the same pixels.

An image is decoded completely, which is the only way to find a truncated file; rotated by its EXIF orientation;
converted to 8-bit RGB, with deeper images scaled rather than clipped; and composited on white if it is transparent.
Of several frames or pages the first is used. The format is detected from the content, not from the file name.
"""

import hashlib
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are read. Pillow's others are not photographs, or run other programs (EPS)."""
MAX_BYTES = 256 * 2**20
"""Larger files are not read: they are videos rather than photographs."""
FIRST_FRAME = "first_frame"
"""Note on an image that is the first of several frames or pages."""
OTHER_FORMAT = "other_format"
"""Note on an image whose file name has another format's suffix."""

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
    frames: int
    """How many frames or pages the file has; `image` is the first."""


def image_id(content: bytes) -> str:
    """The identity of an image file: the first 32 hex digits of the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()[:32]


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        Unfit: It is not a file, cannot be read, or is too large to be an image.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Unfit("too_large", f"{path.stat().st_size} bytes")
        return path.read_bytes()
    except OSError as problem:
        raise Unfit("unreadable", problem.strerror) from problem
    except ValueError as problem:  # a name with a NUL in it
        raise Unfit("unreadable", problem) from problem


def open_picture(content: bytes) -> Picture:
    """Decodes a file's content.

    Raises:
        Unfit: It is not an image, or is broken.
    """
    if not content:
        raise Unfit("empty_file")
    with _identified(content) as file:
        # Phones append a small second image to a JPEG (Pillow: MPO); that does not make it a video.
        frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
        kind = "JPEG" if file.format == "MPO" else file.format or ""
        try:
            file.seek(0)
            file.load()
        except Image.DecompressionBombError as problem:
            raise Unfit("too_large", problem) from problem
        except _DECODER_ERRORS as problem:
            raise Unfit("truncated", problem) from problem
        try:
            return Picture(_as_rgb(_upright(file)), kind, frames)
        except _DECODER_ERRORS as problem:
            raise Unfit("unsupported_colours", f"{file.mode}: {problem}") from problem


def read_picture(path: Path) -> Image.Image:
    """Opens the image in a file.

    Raises:
        Unfit: There is no such file, or it is not a valid image.
    """
    return open_picture(read_bytes(path)).image


def _identified(content: bytes) -> Image.Image:
    try:
        file = Image.open(BytesIO(content), formats=FORMATS)
        pixels = file.width * file.height
        getattr(file, "n_frames", 1)  # reads all frames, which may be broken
    except UnidentifiedImageError as problem:
        raise Unfit("not_an_image") from problem
    except Image.DecompressionBombError as problem:
        raise Unfit("too_large", problem) from problem
    except _DECODER_ERRORS as problem:
        raise Unfit("not_an_image", problem) from problem
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise Unfit("too_large", f"{pixels} pixels")
    return file


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DECODER_ERRORS:  # a broken EXIF block does not invalidate the pixels
        return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _in_8_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")


def _in_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 or 32 bits per pixel, scaled to 8; Pillow's own conversion would clip it."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32)).clip(min=0)
    most = float(values.max())
    # Files of these modes hold floats up to 1 or up to 255, 16-bit integers, or measurements of any range.
    tops = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    top = next((top for top in tops if most <= top), most)
    return Image.fromarray((values / top * 255).round().astype(np.uint8))
