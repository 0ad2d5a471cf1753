"""A Hugging Face data set with a column of images, `hf:OWNER/NAME` or `hf:OWNER/NAME:SPLIT`, read as a stream."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from parityalign.disk import files_below, listing_digest
from parityalign.errors import UserError
from parityalign.hub import open_table
from parityalign.records import content_id
from parityalign.rows import names
from parityalign.seams import Found, Source
from parityalign.sources._shards import found_bytes


def open_source(location: str) -> Source:
    """The images of a data set, on the hub or in a folder.

    On the hub only the name stands for its content: name a revision of your own, or download it, to be sure.
    """
    folder = Path(location)
    return Source(
        where=f"hf:{location}",
        digest=lambda: listing_digest(files_below(folder)) if folder.is_dir() else content_id("hf", location),
        count=lambda: None,
        images=lambda: _images(location),
        holds_files=False,
    )


def _images(location: str) -> Iterator[Found]:
    column = ""
    for number, row in enumerate(open_table(location, prefer=("train",)).rows):
        column = column or _column(row, location)
        cell = row[column]
        yield found_bytes(f"hf:{location}#{number}", cell.get("bytes") if isinstance(cell, Mapping) else cell)


def _column(row: Mapping[str, object], location: str) -> str:
    found = [key for key, cell in row.items() if isinstance(cell, Mapping) and "bytes" in cell]
    if not found:
        raise UserError(f"the data set {location} has no column of images; its columns are {names(row)}")
    return "image" if "image" in found else found[0]
