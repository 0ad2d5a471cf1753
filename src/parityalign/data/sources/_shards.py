"""Images inside other files, such as the shards of a data set."""

import glob
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from parityalign.core import Found, Source, listing_digest
from parityalign.data.images import MAX_BYTES, Unfit


def shards(location: str, images_of: Callable[[Path], Iterator[Found]], count_of: Callable[[Path], int]) -> Source:
    """The images in one file, or in all files that a pattern such as `shards/*.tar` names, sorted.

    Args:
        location: A path or a pattern.
        images_of: The images in a file.
        count_of: The number of images in a file.
    """

    def paths() -> Sequence[Path]:
        named = Path(location)
        return [named] if named.is_file() else sorted(map(Path, glob.glob(location, recursive=True)))

    return Source(
        where=location,
        digest=lambda: listing_digest(paths(), Path(location).parent),
        count=lambda: sum(map(count_of, paths())),
        images=lambda: (found for path in paths() for found in images_of(path)),
        holds_files=False,
    )


def found_bytes(name: str, content: object) -> Found:
    """An image that is given by its bytes only."""

    def read() -> bytes:
        if not isinstance(content, bytes):
            raise Unfit("no_bytes", "the row holds no bytes of an image")
        if len(content) > MAX_BYTES:
            raise Unfit("too_large", f"{len(content)} bytes")
        return content

    return Found(name=name, read=read)
