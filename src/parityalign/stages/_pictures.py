"""What is a sound picture: a file that decodes to its last pixel and that every model family can take."""

import hashlib
import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is read. Others that Pillow knows are no photographs, or run other programs (EPS)."""
MIN_SIDE_PIXELS = 8
MAX_ASPECT = 200
"""Longer side over shorter side; processors of some model families refuse more."""
MAX_BYTES = 256 * 2**20
"""Larger files are not read: no photograph is that large, but a film left in the folder is."""

# Pillow's decoders answer broken files with all of these.
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
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class Unfit(Exception):
    """A file is not let in.

    Attributes:
        reason: A reason code.
        detail: What the decoder said, or what else helps to mend the file.
    """

    def __init__(self, reason: str, detail: object = "") -> None:
        """Unfit for a reason."""
        super().__init__(reason)
        self.reason = reason
        self.detail = str(detail)


def image_id(content: bytes) -> str:
    """The identity of an image file: the first 32 hex digits of the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()[:32]


def shown(path: Path) -> str:
    """The path as text that a file can hold, whatever bytes are in its name."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def inspect(path: Path, folder: Path) -> str:
    """The identity of the sound picture at `path`, which must lie in `folder` or below.

    Raises:
        Unfit: It is no such thing.
    """
    if shown(path) != str(path):
        raise Unfit("unreadable_name", "the file name is not valid text; rename the file")
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise Unfit("outside_folder", "a link that leads out of the folder is not followed")
    if not path.is_file():
        raise Unfit("not_a_file")
    content = _read(path)
    if not content:
        raise Unfit("empty_file")
    _decode(content)
    return image_id(content)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Unfit("too_large", f"{path.stat().st_size} bytes")
        return path.read_bytes()
    except OSError as problem:
        raise Unfit("unreadable", problem.strerror) from problem


def _decode(content: bytes) -> None:
    """Decodes the whole picture as models will see it; only that finds a truncated file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, which nobody reads here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError as problem:
            raise Unfit("not_an_image") from problem
        except _BOMBS as problem:
            raise Unfit("too_large", problem) from problem
        except _DECODER_ERRORS as problem:
            raise Unfit("not_an_image", problem) from problem
        with image:
            _check_shape(*image.size)
            try:
                image.convert("RGB")
            except _DECODER_ERRORS as problem:
                raise Unfit("truncated", problem) from problem


def _check_shape(width: int, height: int) -> None:
    short, long = sorted((width, height))
    if short < MIN_SIDE_PIXELS:
        raise Unfit("too_small", f"{width} x {height} pixels")
    if long > MAX_ASPECT * short:
        raise Unfit("too_thin", f"{width} x {height} pixels")
