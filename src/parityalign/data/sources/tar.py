"""A tar archive of images, such as a WebDataset shard (`000017.jpg` beside `000017.json`), or a pattern of several.

Other parts of a sample are skipped by their suffix; all other files are tried as images.
"""

import io
import struct
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from parityalign.core import Found, Source, SourceKind, UserError, open_given
from parityalign.data.images import MAX_BYTES, Unfit
from parityalign.data.sources._shards import shards

_HEADER_BYTES = 2**20
"""Most that is read to find the next member: its header, and long names or other fields before it."""
_FIELDS = 100
"""Most fields that an archive may give to all members behind them."""
# Python's module raises all of these on broken headers.
_TAR_ERRORS = (tarfile.TarError, OSError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError)
_BESIDE = frozenset(
    ".json .jsonl .txt .cls .cls2 .index .csv .tsv .xml .html .npy .npz .pth .pt .pkl .pyd .ten".split()
)


def open_source(location: str) -> Source:
    """The images in tar archives."""
    return shards(location, _images, lambda path: sum(1 for _ in _members(path)))


SOURCE = SourceKind(open_source)


def _images(path: Path) -> Iterator[Found]:
    for member in _members(path):
        read = partial(_read, path, member.offset_data, member.size, sparse=member.issparse())
        yield Found(name=f"{path}/{member.name.encode('utf-8', 'backslashreplace').decode()}", read=read)


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with open_given(path) as file, tarfile.TarFile(fileobj=(headers := _Headers(file)), mode="r") as archive:
            while member := archive.next():
                # The archive would keep a list of all members; typeshed does not declare it.
                archive.members.clear()  # type: ignore[attr-defined]
                headers.found(member, archive)
                if member.isreg() and not _is_beside(member.name):
                    yield member
    except (*_TAR_ERRORS, struct.error) as problem:
        raise UserError(
            f"cannot read the archive {path}: {problem}.\nA shard is a plain tar; unpack others"
        ) from problem


def _is_beside(name: str) -> bool:
    """Whether a member is another part of a sample, or what WebDataset notes of it: `000017.__url__`."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in _BESIDE or suffix.startswith(".__")


class _Headers(io.RawIOBase):
    """What is read of an archive to find its members: forward only, and little for each.

    Python's module believes the sizes in headers: it jumps back for a negative one, and on to the same header for ever,
    and reads a long name of eight gigabytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _HEADER_BYTES
        self._end = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= self._left:
            raise tarfile.ReadError("a header says that it is longer than any is")
        self._left -= size
        return self._file.read(size)

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def found(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Checks a member, and begins to count anew.

        Raises:
            ReadError: The archive goes back, or keeps too much for members to come.
        """
        if member.size < 0 or archive.offset <= self._end:
            raise tarfile.ReadError(f"{member.name!r} is said to have {member.size} bytes")
        if len(archive.pax_headers) > _FIELDS:
            raise tarfile.ReadError(f"it gives more than {_FIELDS} fields to all members")
        self._end, self._left = archive.offset, _HEADER_BYTES


def _read(path: Path, start: int, size: int, *, sparse: bool) -> bytes:
    if size > MAX_BYTES:
        raise Unfit("too_large", f"{size} bytes")
    if sparse:
        raise Unfit("unreadable", "it is stored with holes; pack it without --sparse")
    try:
        with open_given(path) as file:
            file.seek(start)
            return file.read(size)
    except OSError as problem:  # removed or replaced meanwhile
        raise Unfit("unreadable", problem.strerror) from problem
