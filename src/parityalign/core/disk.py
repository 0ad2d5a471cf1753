"""Disks: waiting until something is on one, and what libraries say of one that refuses, as one error for the user."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from parityalign.core.errors import UserError, WorkFailed

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSALS = (*_FULL, errno.EROFS, errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE)
"""What a disk can refuse with; a missing file, or one without access, is about that file."""
_SAYINGS = (
    *map(os.strerror, (*_FULL, errno.EROFS, errno.EIO)),
    *("database or disk is full", "disk I/O error", "when writing image file"),
)
"""In messages of libraries that do not raise an OSError: safetensors, tokenizers, SQLite, Pillow."""
_TORCH = ("inline_container.cc", "PytorchStreamWriter failed")
"""In messages of torch, which do not say why a file could not be written."""


def to_disk(folder: Path, names: Iterable[str]) -> None:
    """Waits until files of a folder, and all folders in it, are on the disk, so that a power cut takes none of them.

    Args:
        folder: The folder.
        names: Relative paths of the files.

    Raises:
        OSError: The disk refused.
    """
    for name in names:
        _sync(folder / name)
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        folder_to_disk(path)


def folder_to_disk(folder: Path) -> None:
    """Waits until it is on the disk which files a folder has, where the system can say so."""
    with suppress(OSError):  # Windows opens no folder, and some network file systems sync none
        _sync(folder)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs only what may be written
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def disk_faults_in_words(place: Path | None = None) -> Iterator[None]:
    """Turns what any library raises about a disk that refuses into an error for the user; all else goes through.

    Args:
        place: What was being written to, for messages.

    Raises:
        WorkFailed: The disk refused (full, read-only, gone).
    """
    try:
        yield
    except UserError:
        raise
    except Exception as problem:  # tokenizers raise just that
        why = _disk_fault(problem)
        if why is None:
            raise
        file = next((each.filename for each in _chain(problem) if isinstance(each, OSError) and each.filename), place)
        raise WorkFailed(
            f"the disk refused {file or 'to be written to'}: {why}\n"
            "What was computed so far is kept: free some space, then run the same command."
        ) from problem


def _disk_fault(problem: BaseException) -> str | None:
    """What the disk refused with, in words; None if the error is about something else."""
    for each in _chain(problem):
        if isinstance(each, OSError) and each.errno in _REFUSALS:
            return each.strerror or os.strerror(each.errno)
        told = str(each)
        if any(mark in told for mark in _TORCH):
            return "torch could not write a file to its end; the disk seems to be full"
        said = next((saying for saying in _SAYINGS if saying in told), None)
        if said and not (isinstance(each, OSError) and each.errno):
            return said
    return None


def _chain(problem: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        yield problem
        problem = problem.__cause__ or problem.__context__
