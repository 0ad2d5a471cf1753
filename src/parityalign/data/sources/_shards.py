"""Images inside other files, such as the shards of a data set."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from parityalign.core import Found, Source, files_named, listing_digest
from parityalign.data.cells import read_cell


def shards(location: str, images_of: Callable[[Path], Iterator[Found]], count_of: Callable[[Path], int]) -> Source:
    """The images in one file, or in all files that a pattern such as `shards/*.tar` names, sorted.

    Args:
        location: A path or a pattern.
        images_of: The images in a file.
        count_of: The number of images in a file.
    """

    def paths() -> Sequence[Path]:
        return files_named(location)

    return Source(
        where=location,
        digest=lambda: listing_digest(paths(), Path(location).parent),
        count=lambda: sum(map(count_of, paths())),
        images=lambda: (found for path in paths() for found in images_of(path)),
        holds_files=False,
    )


def found_bytes(name: str, content: object) -> Found:
    """An image that is given by its bytes only."""

    return Found(name=name, read=partial(read_cell, content, None))
