"""The pictures seen so far, to find duplicates of a new one; takes 24 bytes of memory per picture."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from parityalign.data import Unfit, read_picture
from parityalign.stages._likeness import GIST_BYTES, GIST_LEVELS_APART, HASH_BITS_APART, Array, Look, same_picture

BYTES: Final = "same bytes"
PIXELS: Final = "same pixels"
NEARLY: Final = "nearly the same pixels"


_BLOCK = 16384
"""Pictures per block of hashes."""


class Match(NamedTuple):
    """An earlier picture that a new one duplicates."""

    how: str
    """One of `BYTES`, `PIXELS` and `NEARLY`."""
    path: str


class Seen:
    """The pictures seen so far, in order.

    Paths and hashes are in a temporary database, which the system deletes in any case.
    """

    def __init__(self) -> None:
        self._count = 0
        self._blocks: list[tuple[Array, Array]] = []  # hashes and gists; blocks, as a growing array is copied
        self._rows = _scratch()
        self._rows.execute("CREATE TABLE seen (place INTEGER PRIMARY KEY, image_id TEXT, pixels TEXT, path TEXT)")
        self._rows.execute("CREATE INDEX by_id ON seen (image_id)")
        self._rows.execute("CREATE INDEX by_pixels ON seen (pixels)")

    def __len__(self) -> int:
        return self._count

    def add(self, look: Look, path: str) -> None:
        """Adds a picture with the path of its file."""
        row = (len(self), look.image_id, look.pixels, path)
        self._rows.execute("INSERT INTO seen VALUES (?, ?, ?, ?)", row)
        block, place = divmod(self._count, _BLOCK)
        if block == len(self._blocks):
            self._blocks.append((np.zeros(_BLOCK, np.uint64), np.zeros((_BLOCK, GIST_BYTES), np.uint8)))
        hashes, gists = self._blocks[block]
        hashes[place], gists[place] = look.hash, np.frombuffer(look.gist, np.uint8)
        self._count += 1

    def match(self, look: Look, picture: Callable[[], Image.Image], *, near: bool) -> Match | None:
        """The first picture seen that this one duplicates, preferring equal bytes, then equal pixels, then near copies.

        Args:
            look: The look of the new picture.
            picture: Opens it; called only if the hash finds a candidate.
            near: Whether re-encoded and resized pictures are looked for.
        """
        for how, column, identity in ((BYTES, "image_id", look.image_id), (PIXELS, "pixels", look.pixels)):
            query = f"SELECT path FROM seen WHERE {column} = ? ORDER BY place LIMIT 1"
            for (path,) in self._rows.execute(query, (identity,)):
                return Match(how, path)
        if near:
            opened = cache(picture)  # decoded once, however many candidates there are
            for path in self._alike(look):
                if _same(opened(), path):
                    return Match(NEARLY, path)
        return None

    def _alike(self, look: Look) -> Iterator[str]:
        """The paths of the candidates by hash and gist."""
        for number, (hashes, gists) in enumerate(self._blocks):
            start = number * _BLOCK
            for place in _places_alike(look, hashes[: len(self) - start], gists):
                row = self._rows.execute("SELECT path FROM seen WHERE place = ?", (start + place,))
                yield from (path for (path,) in row)


class Names:
    """A multiset of the names that an earlier process has done."""

    def __init__(self, names: Iterable[str]) -> None:
        self._rows = _scratch()
        self._rows.execute("CREATE TABLE names (name TEXT PRIMARY KEY, times INTEGER) WITHOUT ROWID")
        again = "INSERT INTO names VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET times = times + 1"
        self._rows.executemany(again, ((name,) for name in names))

    def take(self, name: str) -> bool:
        """Whether the name was done before; each time it was done counts once."""
        took = self._rows.execute("UPDATE names SET times = times - 1 WHERE name = ? AND times > 0", (name,))
        return took.rowcount > 0


def _places_alike(look: Look, hashes: Array, gists: Array) -> list[int]:
    """Indices of candidates in a block; hashes (pictures,), gists (at least as many, 16)."""
    near = np.flatnonzero(np.bitwise_count(hashes ^ np.uint64(look.hash)) <= HASH_BITS_APART)
    apart = np.abs(gists[near].astype(np.int16) - np.frombuffer(look.gist, np.uint8))
    places: list[int] = near[(apart <= GIST_LEVELS_APART).all(axis=1)].tolist()
    return places


def _scratch() -> sqlite3.Connection:
    """A temporary database with a small cache and without rollback."""
    rows = sqlite3.connect("")
    rows.execute("PRAGMA cache_size = -512")  # KiB
    rows.execute("PRAGMA journal_mode = OFF")
    return rows


def _same(picture: Image.Image, path: str) -> bool:
    try:
        return same_picture(picture, read_picture(Path(path)))
    except Unfit:  # removed or changed since it was seen
        return False
