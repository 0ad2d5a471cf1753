"""File helpers: digests, atomic writes, whole lines."""

import glob
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from parityalign.core.errors import UserError, WorkFailed
from parityalign.core.records import content_id

HALF_WRITTEN = ".part"
"""Suffix of a file that `write_whole` has not moved into place; a kill may leave one behind."""
_SEPARATOR = os.sep.encode()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_files(folder: Path, *, but: str | None = None) -> list[str]:
    """The files below a folder as sorted relative paths with forward slashes, without half-written ones.

    Args:
        folder: The folder.
        but: Name of a subfolder to leave out.
    """
    if not folder.is_dir():
        return []
    whole = (path for path in files_below(folder) if path.suffix != HALF_WRITTEN and path.is_file())
    names = (path.relative_to(folder) for path in whole)
    return sorted(name.as_posix() for name in names if name.parts[0] != but)


def digest_of_files(sha256: Mapping[str, str]) -> str:
    """One digest of many files, given as {relative path: SHA-256} in any order."""
    return content_id(*(part for item in sorted(sha256.items()) for part in item))


def folder_digest(folder: Path, *, but: Collection[str] = ()) -> str:
    """A digest of the names and contents of all files below a folder, but for some, wherever the folder lies."""
    return digest_of_files({name: file_digest(folder / name) for name in folder_files(folder) if name not in but})


def files_below(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is not a folder, sorted by path; links to folders are listed but not entered.

    A folder below that cannot be read is listed itself, so that whoever reads the files tells of it.

    Raises:
        UserError: The folder itself cannot be read.
    """
    # With 0 between its parts a path sorts as the list of its parts does.
    for name in sorted(path.replace(_SEPARATOR, b"\0") for path in _walk(os.fsencode(folder))):
        yield Path(os.fsdecode(name.replace(b"\0", _SEPARATOR)))


def _walk(folder: bytes) -> Iterator[bytes]:
    try:
        files, folders = _listed(folder)
    except OSError as problem:
        raise UserError(f"cannot read the folder {_printable(folder)}: {problem.strerror}") from problem
    yield from files
    while folders:  # no recursion: folders may lie a thousand deep
        inner = folders.pop()
        try:
            files, below = _listed(inner)
        except OSError:  # no permission, too long a path, removed meanwhile
            files, below = [inner], []
        yield from files
        folders += below


def _listed(folder: bytes) -> tuple[list[bytes], list[bytes]]:
    """What is in a folder: files, links and the like; folders."""
    files: list[bytes] = []
    folders: list[bytes] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.path)
    return files, folders


def files_named(pattern: str) -> list[Path]:
    """The file of this path, or all that a pattern such as `shards/*.tar` or `shards/**/*.tar` matches, sorted.

    Raises:
        UserError: The pattern leads through folders too deep to be followed.
    """
    if os.path.exists(pattern):
        return [Path(pattern)]
    try:
        return sorted(map(Path, glob.iglob(pattern, recursive=True)))
    except RecursionError as problem:
        raise UserError(
            f"the folders that {pattern} matches are nested too deeply; name the one with the files"
        ) from problem


def listing_digest(paths: Iterable[Path], root: Path) -> str:
    """A fingerprint that changes when a file is added, removed or written, wherever the root lies; opens no file.

    Args:
        paths: The files.
        root: The folder that their names are relative to in the fingerprint.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = path.lstat()
            size, written = status.st_size, status.st_mtime_ns
        except (OSError, ValueError):  # a list may name a missing file or an impossible file name
            size, written = -1, -1
        digest.update(f"{printable_path(relative_path(path, root))}\0{size}\0{written}\0".encode())
    return digest.hexdigest()[:32]


def relative_path(path: Path, root: Path) -> Path:
    """The path relative to a folder that need not contain it; as it is where there is no such path."""
    try:
        return Path(os.path.relpath(path, root))
    except ValueError:  # another drive, or an impossible file name
        return path


def kept_path(path: str, run: Path) -> str:
    """A path as records of a run have it: relative to the run folder, so that both can be moved together."""
    return printable_path(relative_path(Path(path), run)) if os.path.isabs(path) else path


def found_path(kept: str, run: Path) -> str:
    """The inverse of `kept_path`; an absolute path, as in runs of earlier versions, stays."""
    return os.path.normpath(run / kept) if kept else kept


def printable_path(path: Path) -> str:
    """The path as encodable text, whatever bytes are in its name."""
    return _printable(os.fsencode(path))


def _printable(name: bytes) -> str:
    """A name of the file system as encodable text."""
    return name.decode("utf-8", "backslashreplace")


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a small file so that a reader sees the old content or the new, never a part.

    Raises:
        WorkFailed: The disk refused (full, read-only).
    """
    part = path.with_name(path.name + HALF_WRITTEN)
    with writing(path):
        with part.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
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
    """Turns an error of the disk into an error for the user."""
    try:
        yield
    except OSError as problem:
        raise WorkFailed(
            f"cannot write {path}: {problem.strerror}\n"
            "What was computed so far is kept: free some space, then run the same command."
        ) from problem
