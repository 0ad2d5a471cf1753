"""A Hugging Face data set with a column of images, `hf:OWNER/NAME` or `hf:OWNER/NAME:SPLIT`, read as a stream."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from parityalign.config import divided
from parityalign.core import Found, Source, SourceKind, UserError, content_id, files_below, listing_digest, quoted_names
from parityalign.data.hf_datasets import open_table
from parityalign.data.images import MAX_BYTES, Unfit, read_bytes
from parityalign.data.sources._shards import found_bytes

# No network, no such file, no such protocol, a broken archive.
_OPENER_ERRORS = (OSError, ValueError, RuntimeError, ImportError, LookupError, zipfile.BadZipFile, zlib.error)


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
    column = ""
    for number, row in enumerate(open_table(location, prefer=("train",)).rows):
        column = column or _column(row, location)
        yield _found(f"hf:{location}#{number}", row[column], Path(divided(location)[0]))


def _digest(location: str) -> str:
    name, split = divided(location)
    place = Path(name)
    if not place.exists():
        return content_id("hf", location)
    listing = listing_digest(files_below(place) if place.is_dir() else [place], place.parent)
    return content_id(listing, split) if split else listing


def _found(name: str, cell: object, place: Path) -> Found:
    """An image in the data set, or in its own file beside it, as in folders of images."""
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, Mapping) else (cell, None)
    if content is None and isinstance(path, str) and "://" in path:
        return Found(name=name, read=partial(_read_remote, name, path))
    if content is None and isinstance(path, str) and place.is_dir():
        return Found(name=name, read=partial(read_bytes, place / path))
    return found_bytes(name, content)


def _read_remote(name: str, url: str) -> bytes:
    from datasets.utils.file_utils import xopen  # knows archives, the hub and its tokens  # noqa: PLC0415

    try:
        with xopen(url, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except _OPENER_ERRORS as problem:
        raise Unfit("unreadable", f"{url}: {problem}") from problem
    return found_bytes(name, content).read()


def _column(row: Mapping[str, object], location: str) -> str:
    found = [key for key, cell in row.items() if isinstance(cell, Mapping) and "bytes" in cell]
    if not found:
        raise UserError(f"the data set {location} has no column of images; its columns are {quoted_names(row)}")
    return "image" if "image" in found else found[0]
