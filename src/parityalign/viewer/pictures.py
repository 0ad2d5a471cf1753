"""Pictures for a page, opened within limits and encoded anew, so that only pixels leave."""

from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from PIL import Image

from parityalign.data import Unfit, image_id, open_picture, read_bytes

SIDES = (160, 1600)
"""Longest sides, in pixels, that a page may ask for: in a list, and large."""
_KEPT_BYTES = 64 * 2**20
"""Of encoded pictures that are kept for the next view."""


class Encoded(NamedTuple):
    """A picture as it is sent."""

    content: bytes
    kind: str
    """Its media type."""


class Pictures:
    """Makes pictures, and keeps the last ones."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[tuple[object, ...], Encoded] = {}
        self._bytes = 0

    def encoded(self, path: Path, side: int, named: str = "") -> Encoded:
        """The picture in a file, at most `side` pixels high and wide.

        Args:
            path: The file.
            side: One of `SIDES`.
            named: The identity of its content as the run knows it; empty where it knows none.

        Raises:
            Unfit: The file is missing, is no picture, or not the one that the run means.
        """
        key = (path, side, named, _state(path))
        if found := self._kept.get(key):
            return found
        made = _encoded(open_picture(_content(path, named)).image, side)
        with self._lock:
            if found := self._kept.get(key):  # another thread made it meanwhile
                return found
            self._kept[key] = made
            self._bytes += len(made.content)
            while self._bytes > _KEPT_BYTES:
                self._bytes -= len(self._kept.pop(next(iter(self._kept))).content)
        return made


def fault_of(path: Path, named: str = "") -> str:
    """Why a picture cannot be shown, in words, as far as that can be told without decoding it; empty: nothing."""
    try:
        _content(path, named)
    except Unfit as unfit:
        return str(unfit)
    return ""


def _content(path: Path, named: str) -> bytes:
    content = read_bytes(path)
    if named and image_id(content) != named:
        raise Unfit("changed", "the file is another one now")
    return content


def _encoded(image: Image.Image, side: int) -> Encoded:
    image.thumbnail((side, side))
    made = BytesIO()
    if side == min(SIDES):
        image.save(made, "jpeg", quality=85)
        return Encoded(made.getvalue(), "image/jpeg")
    image.save(made, "png", compress_level=1)  # small print has to be read as the models do
    return Encoded(made.getvalue(), "image/png")


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return (-1, -1)
    return status.st_size, status.st_mtime_ns
