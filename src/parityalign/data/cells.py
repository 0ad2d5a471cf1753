"""The picture in a cell of a data set's table: its bytes, or the name of a file that belongs to the data set.

A row is written by whoever made the data set. So a name may lead into the data set's own folder and archives and to the
web, and nowhere else on this machine.
"""

import lzma
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from parityalign.config import divided
from parityalign.core import TookTooLongError, in_time, leads_out, open_given, out_of_reach
from parityalign.data.images import MAX_BYTES, Unfit, read_bytes

# No network, no such file, a broken archive.
_OPENER_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, ValueError, RuntimeError, ImportError, LookupError, EOFError, TypeError, struct.error),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)
_SECONDS = 120
"""Waiting for one picture of the web for longer is given up; the client would try again for hours."""
_WEB = ("hf", "https", "http")
_ARCHIVES = ("zip", "tar")


def folder_of_table(name: str) -> Path | None:
    """The folder that a data set on this machine is or lies in; None for a name on the hub."""
    place = Path(divided(name)[0])
    if place.is_dir():
        return place
    return place.parent if place.is_file() else None


def holds_picture(cell: object) -> bool:
    """Whether a cell is of a column of pictures: plain bytes, or, as the library keeps them, bytes and a path."""
    return isinstance(cell, bytes) or (isinstance(cell, Mapping) and "bytes" in cell)


def bytes_in(cell: object) -> bytes | None:
    """The bytes in a cell, if it holds any.

    Raises:
        Unfit: They are too many for a picture.
    """
    content = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not isinstance(content, bytes):
        return None
    if len(content) > MAX_BYTES:
        raise Unfit("too_large", f"{len(content)} bytes")
    return content


def name_in(cell: object) -> str:
    """The path or address in a cell; empty if there is none."""
    name = cell.get("path") if isinstance(cell, Mapping) else cell
    return name if isinstance(name, str) else ""


def file_in(folder: Path, name: str) -> Path:
    """The file of a name, in the data set's folder.

    Raises:
        Unfit: It is elsewhere, or no file can have this name.
    """
    try:
        outside = leads_out(folder / name, folder)
    except ValueError as problem:  # a NUL in it
        raise Unfit("unreadable", problem) from problem
    if outside:
        raise Unfit("outside_folder", f"{name} is not in the data set's folder")
    return folder / name


def read_cell(cell: object, folder: Path | None) -> bytes:
    """The bytes of a cell's picture, from wherever they are.

    Args:
        cell: The cell.
        folder: The data set's folder; None: it is on the hub.

    Raises:
        Unfit: There are none, they are elsewhere, or cannot be read.
    """
    content, name = bytes_in(cell), name_in(cell)
    if content is not None:
        return content
    if "://" in name:
        return _read_remote(name, folder)
    if name and folder:
        return read_bytes(file_in(folder, name))
    raise Unfit("no_bytes", "the row holds no bytes of an image")


def _read_remote(url: str, folder: Path | None) -> bytes:
    _refuse_elsewhere(url, folder)
    try:
        return bytes_in(in_time(partial(_fetched, url), _SECONDS)) or b""
    except TookTooLongError as problem:
        raise Unfit("unreadable", f"{url}: no answer within {_SECONDS} seconds") from problem


def _fetched(url: str) -> bytes:
    from datasets.utils.file_utils import xopen  # knows archives, the hub and its tokens  # noqa: PLC0415

    try:
        with xopen(url, "rb") as file:
            content: bytes = file.read(MAX_BYTES + 1)
            return content
    except (*_OPENER_ERRORS, *out_of_reach(), *_web_errors()) as problem:
        raise Unfit("unreadable", f"{url}: {problem}") from problem


def _refuse_elsewhere(url: str, folder: Path | None) -> None:
    """Refuses an address, such as `zip://a.png::hf://datasets/OWNER/NAME/a.zip`, that other things are reached by."""
    *inner, outer = url.split("::")
    protocol, _, place = outer.rpartition("://")
    if any(part.partition("://")[0] not in _ARCHIVES for part in inner) or protocol not in ("", "file", *_WEB):
        raise Unfit("unreadable", f"{url}: only {', '.join((*_WEB, *_ARCHIVES))} are opened")
    if protocol in _WEB:
        return
    if not folder:
        raise Unfit("outside_folder", f"{url} is a file of this machine, and the data set is not")
    try:
        open_given(file_in(folder, place)).close()  # no pipe
    except OSError as problem:
        raise Unfit("unreadable", f"{url}: {problem.strerror}") from problem


def _web_errors() -> tuple[type[Exception], ...]:
    """What the package that `fsspec` asks the web with raises; it is loaded by then, if it is installed."""
    client = sys.modules.get("aiohttp")
    return (client.ClientError,) if client else ()
