"""Pairs of one's own for a run: what the files of a task's `pairs` say, and the images that they name or hold.

pairs: mine.csv                     a file in one of the forms of `given_pairs.py`
pairs: runs/old/exports/llava       the folder of an export: its `data.json`, `data.jsonl` or Parquet files
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from parityalign.config import PairsFile
from parityalign.core import Found, Source, UserError, content_id, file_digest, listing_digest
from parityalign.data._pair_tables import PARQUET, TABLE_SUFFIXES, count_rows, named_images
from parityalign.data.given_pairs import GivenPair, read_given_pairs
from parityalign.data.images import image_id
from parityalign.data.sources._files import found_file
from parityalign.data.sources._shards import found_bytes

_OF_EXPORTS = ("data.json", "data.jsonl")


class OwnPair(NamedTuple):
    """A pair of one's own, and which image it is about."""

    given: GivenPair
    image: str
    """As intake calls it: a full path; of an image in the file the file's path, `#` and the image's id; empty: none."""


def read_own_pairs(spec: PairsFile, task: str) -> Iterator[OwnPair]:
    """The pairs of a task's file, in its order.

    Raises:
        UserError: It cannot be read, or a row is broken; the message names its place.
    """
    for path in _files_of(spec):
        for pair in _pairs_of(path, spec, task, pictures=True):
            yield OwnPair(pair.model_copy(update={"picture": None}), _name_of(pair, path, spec))


def pairs_source(spec: PairsFile, task: str) -> Source:
    """The images that a task's file of pairs names or holds, each once.

    Raises, when they are read:
        UserError: The file cannot be read, or none of its rows has an image.
    """

    def images() -> Iterator[Found]:
        seen = set[str]()
        for path in _files_of(spec):
            for pair in _pairs_of(path, spec, task, pictures=True):
                name = _name_of(pair, path, spec)
                if name and name not in seen:
                    seen.add(name)
                    yield found_file(Path(name)) if pair.picture is None else found_bytes(name, pair.picture)
        if not seen:
            raise UserError(
                f"none of the pairs in {spec.file} says which image it is about. Expected an image in each row; if its "
                f"column or key has another name: tasks.{task}.pairs: {{file: {spec.file}, columns: {{image: NAME}}}}"
            )

    return Source(
        where=spec.file,
        digest=lambda: listing_digest(map(Path, _what_holds_images(spec, task)), Path(spec.file).parent),
        count=lambda: None,  # several pairs may be about one image
        images=images,
        of_pairs=True,
    )


def pairs_state(spec: PairsFile) -> str:
    """A fingerprint of a file's name and content and of how it is read; its images are intake's.

    Raises:
        UserError: It cannot be read.
    """
    how = spec.model_dump_json(include={"format", "columns", "answers"})
    try:
        return content_id(how, Path(spec.file).name, *map(file_digest, _files_of(spec)))
    except OSError as problem:
        raise UserError(f"cannot read the pairs in {spec.file}: {problem.strerror}") from problem


def count_pairs(spec: PairsFile, task: str) -> int:
    """How many pairs there are; images in the file are not read."""
    return sum(
        count_rows(path) if _is_parquet(path, spec) else sum(1 for _ in _pairs_of(path, spec, task))
        for path in _files_of(spec)
    )


def _pairs_of(path: Path, spec: PairsFile, task: str, *, pictures: bool = False) -> Iterator[GivenPair]:
    return read_given_pairs(
        path,
        task=task,
        form=spec.format,
        columns=spec.columns,
        pictures=pictures,
        questions_alone=spec.answers == "teacher",
    )


def _is_parquet(path: Path, spec: PairsFile) -> bool:
    return (spec.format or TABLE_SUFFIXES.get(path.suffix.lower())) == PARQUET


def _files_of(spec: PairsFile) -> list[Path]:
    """The file, or those in the folder of an export."""
    place = Path(spec.file)
    if not place.is_dir():
        return [place]
    files = [place / name for name in _OF_EXPORTS if (place / name).is_file()] or sorted(place.rglob("*.parquet"))
    if not files:
        raise UserError(f"the folder {place} holds no pairs: expected {' or '.join(_OF_EXPORTS)}, or Parquet files")
    return files


def _what_holds_images(spec: PairsFile, task: str) -> Iterator[str]:
    """The full paths of the images that are files of their own, and of the files that may hold some."""
    for path in _files_of(spec):
        if _is_parquet(path, spec):
            yield str(path)
            named = named_images(path, spec.columns)
        else:
            named = (pair.image for pair in _pairs_of(path, spec, task) if pair.image)
        yield from dict.fromkeys(_place_of(image, path, spec) for image in named)


def _name_of(pair: GivenPair, path: Path, spec: PairsFile) -> str:
    if pair.picture is not None:
        return f"{path}#{image_id(pair.picture)}"
    return _place_of(pair.image, path, spec) if pair.image else ""


def _place_of(image: str, path: Path, spec: PairsFile) -> str:
    return os.path.join(spec.image_folder or path.parent, image)
