"""A Hugging Face data set with a column of images, `hf:OWNER/NAME` or `hf:OWNER/NAME:SPLIT`, read as a stream."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from parityalign.config import divided
from parityalign.core import Found, Source, SourceKind, UserError, content_id, files_below, listing_digest, quoted_names
from parityalign.data.cells import folder_of_table, holds_picture, read_cell
from parityalign.data.hf_datasets import open_table

_ROWS_WITHOUT = 100
"""From this row on a picture must have been seen; rows before may have none."""


def open_source(location: str) -> Source:
    """The images of a data set, on the hub or in a folder.

    On the hub only the name is fingerprinted, so a changed data set goes unnoticed; download it to be sure.
    """
    return Source(
        where=f"hf:{location}",
        digest=lambda: _digest(location),
        count=lambda: None,
        images=lambda: _images(location),
        holds_files=False,
    )


SOURCE = SourceKind(open_source, by_name=True)


def _images(location: str) -> Iterator[Found]:
    column, folder = "", folder_of_table(location)
    for number, row in enumerate(open_table(location, prefer=("train",)).rows):
        column = column or _column(row)
        if not column and (None not in row.values() or number == _ROWS_WITHOUT):
            raise UserError(f"the data set {location} has no column of images; its columns are {quoted_names(row)}")
        yield Found(name=f"hf:{location}#{number}", read=partial(read_cell, row.get(column), folder))


def _digest(location: str) -> str:
    name, split = divided(location)
    place = Path(name)
    if not place.exists():
        return content_id("hf", location)
    listing = listing_digest(files_below(place) if place.is_dir() else [place], place.parent)
    return content_id(listing, split) if split else listing


def _column(row: Mapping[str, object]) -> str:
    """The column of images as far as this row tells: empty if it has no picture."""
    found = [key for key, cell in row.items() if holds_picture(cell)]
    return "image" if "image" in found else next(iter(found), "")
