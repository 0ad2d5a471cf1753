"""Small pieces that every file on the disk is made with: digests, whole writes, whole lines."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from parityalign.errors import WorkFailed
from parityalign.records import content_id

HALF_WRITTEN = ".part"
"""Suffix of a file that `write_whole` has not moved into place; a kill may leave one behind."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_files(folder: Path) -> list[str]:
    """The files below a folder as sorted relative paths with forward slashes; half-written ones are none."""
    whole = (path for path in folder.rglob("*") if path.suffix != HALF_WRITTEN and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in whole)


def digest_of_files(sha256: Mapping[str, str]) -> str:
    """One digest of many files, given as {relative path: SHA-256} in any order."""
    return content_id(*(part for item in sorted(sha256.items()) for part in item))


def folder_digest(folder: Path) -> str:
    """A digest of the names and contents of all files below a folder, wherever the folder lies."""
    return digest_of_files({name: file_digest(folder / name) for name in folder_files(folder)})


def write_whole(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old content or the new, never a part.

    Raises:
        WorkFailed: The disk refused (full, read-only).
    """
    part = path.with_name(path.name + HALF_WRITTEN)
    with writing(path):
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def cut_torn_line(path: Path) -> None:
    """Cuts off what follows the last line end: a write that was killed halfway."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep:  # backwards in blocks: the file may be large, the torn line is short
            start = max(0, keep - 65536)
            file.seek(start)
            line_end = file.read(keep - start).rfind(b"\n")
            if line_end >= 0:
                keep = start + line_end + 1
                break
            keep = start
        if keep < end:
            file.truncate(keep)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a refusal of the disk into the one error that is meant for the user."""
    try:
        yield
    except OSError as problem:
        raise WorkFailed(
            f"cannot write {path}: {problem.strerror}\n"
            "What was computed so far is kept: make room, then run the same command."
        ) from problem
