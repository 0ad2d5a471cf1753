"""A folder: every file in it and in the folders below, sorted by path."""

from pathlib import Path

from parityalign.core import Source, SourceKind, files_below, listing_digest
from parityalign.data.sources._files import found_file


def open_source(location: str) -> Source:
    """The files below a folder."""
    folder = Path(location)
    return Source(
        where=location,
        digest=lambda: listing_digest(files_below(folder), folder),
        count=lambda: sum(1 for _ in files_below(folder)),
        images=lambda: (found_file(path, inside=folder) for path in files_below(folder)),
    )


SOURCE = SourceKind(open_source)
