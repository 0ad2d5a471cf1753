"""A tar archive of images, such as a WebDataset shard (`000017.jpg` beside `000017.json`), or a pattern of several.

Other parts of a sample are skipped by their suffix; all other files are tried as images.
"""

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from parityalign.core import Found, Source, SourceKind, UserError
from parityalign.data.images import MAX_BYTES, Unfit
from parityalign.data.sources._shards import shards

_BESIDE = frozenset(
    ".json .jsonl .txt .cls .cls2 .index .csv .tsv .xml .html .npy .npz .pth .pt .pkl .pyd .ten".split()
)


def open_source(location: str) -> Source:
    """The images in tar archives."""
    return shards(location, _images, lambda path: sum(1 for _ in _members(path)))


SOURCE = SourceKind(open_source)


def _images(path: Path) -> Iterator[Found]:
    for member in _members(path):
        read = partial(_read, path, member.offset_data, member.size)
        yield Found(name=f"{path}/{member.name.encode('utf-8', 'backslashreplace').decode()}", read=read)


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(path, "r:") as archive:
            while member := archive.next():
                # The archive would keep a list of all members; typeshed does not declare it.
                archive.members.clear()  # type: ignore[attr-defined]
                if member.isreg() and PurePosixPath(member.name).suffix.lower() not in _BESIDE:
                    yield member
    except (tarfile.TarError, OSError) as problem:
        raise UserError(
            f"cannot read the archive {path}: {problem}.\nA shard is a plain tar; unpack others"
        ) from problem


def _read(path: Path, start: int, size: int) -> bytes:
    if size > MAX_BYTES:
        raise Unfit("too_large", f"{size} bytes")
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)
