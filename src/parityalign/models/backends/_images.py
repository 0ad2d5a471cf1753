"""Images for servers: data URLs of the pixels that a local model would see."""

import base64
import math
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image

from parityalign.data import open_picture, read_bytes

_UPRIGHT = 1
_AS_THEY_ARE = ("PNG", "JPEG")


def data_url(path: Path, max_pixels: int | None = None) -> str:
    """The image in a file: the file itself if every decoder reads it alike, else its pixels as PNG.

    Args:
        path: The file.
        max_pixels: Larger images are scaled down to so many. None: none is.

    Raises:
        Unfit: There is no such file, or it is not a valid image.
    """
    content = read_bytes(path)
    kind = _plain_format(content, max_pixels)
    return as_url(content, kind) if kind else as_url(as_png(_scaled(open_picture(content).image, max_pixels)), "PNG")


def _scaled(image: Image.Image, max_pixels: int | None) -> Image.Image:
    """An image of the same shape with at most so many pixels."""
    if max_pixels is None or image.width * image.height <= max_pixels:
        return image
    by = math.sqrt(max_pixels / (image.width * image.height))
    width = min(max(1, int(image.width * by)), max_pixels)  # a line is one pixel wide
    height = max(1, min(int(image.height * by), max_pixels // width))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def as_png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def as_url(content: bytes, kind: str) -> str:
    """A file of the given format as a data URL."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"


def _plain_format(content: bytes, max_pixels: int | None) -> str | None:
    """The file's format if every decoder sees the same pixels, and no more than so many.

    So it is for 8-bit RGB, one frame, upright, opaque, no profile.
    """
    try:
        with Image.open(BytesIO(content), formats=_AS_THEY_ARE) as file:
            plain = (
                file.mode == "RGB"
                and (max_pixels is None or file.width * file.height <= max_pixels)
                and getattr(file, "n_frames", 1) == 1
                and file.getexif().get(ExifTags.Base.Orientation, _UPRIGHT) == _UPRIGHT
                and not file.info.keys() & {"icc_profile", "transparency"}
            )
            return file.format if plain else None
    except (OSError, ValueError, SyntaxError):  # `open_picture` reports the problem, or reads it anyway
        return None
