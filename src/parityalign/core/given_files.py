"""The one way to open a file that a run did not write: regular files only, and never more bytes than a limit.

Whoever names the file (a list of paths, a row of a data set, a link in a folder) may name a pipe that nobody writes
into, a device that never ends, or a file outside its folder.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from parityalign.core.errors import UserError

MAX_TABLE_BYTES = 2 * 2**30
"""Largest file of rows that is read as a whole; in memory its rows take several times as much."""
MAX_LINE_BYTES = 64 * 2**20
"""Longest line of a file that is read line by line."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Some files of the system (/proc/kmsg) look regular and wait all the same; Windows has no such flag.
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_given(path: Path) -> BinaryIO:
    """Opens a regular file for reading; links are followed.

    Raises:
        OSError: It cannot be read, or is not a regular file; `strerror` says why.
        ValueError: No file can have this name.
    """
    _refuse_irregular(path, os.stat(path))  # before it is opened: opening some devices does something
    descriptor = os.open(path, os.O_RDONLY | _WITHOUT_WAITING)
    try:
        _refuse_irregular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_given(path: Path, limit: int) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: It cannot be read, is not a regular file or is larger than the limit; `strerror` says why.
        ValueError: No file can have this name.
    """
    with open_given(path) as file:
        size = os.fstat(file.fileno()).st_size
        # The size that the system tells is not trusted: the file may grow, and those of /proc have none.
        content = (file.read(limit + 1) or b"") if size <= limit else b""
    if max(size, len(content)) > limit:
        told = f"it has {max(size, len(content)):,} bytes; at most {limit:,} are read"
        raise OSError(errno.EFBIG, told, os.fspath(path))
    return content


def given_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a regular file that are not blank, with their numbers from 1; nothing but one line is in memory.

    Raises:
        OSError: It cannot be read, or is not a regular file; `strerror` says why.
        ValueError: No file can have this name.
        UserError: A line is too long.
    """
    with open_given(path) as file:
        yield from bounded_lines(file, path)


def bounded_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of an open file that are not blank, with their numbers from 1.

    Raises:
        UserError: A line is too long.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UserError(f"{path}, line {number} is longer than {MAX_LINE_BYTES:,} bytes; is it a text file?")
        if line.strip():
            yield number, line


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path, with links resolved, is outside a folder.

    A snapshot in the cache of the Hugging Face hub consists of links to `blobs` beside it, which belong to it.
    """
    root = Path(os.path.realpath(folder))
    for parent in (root, *root.parents):
        if parent.parent.name == "snapshots" and (parent.parent.parent / "blobs").is_dir():
            root = parent.parent.parent
            break
    return not Path(os.path.realpath(path)).is_relative_to(root)


def _refuse_irregular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))
