"""The images seen so far, to be asked for those that equal a new one."""

from collections import Counter
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


class SeenImages:
    """Images in the order in which they were seen."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._by_bytes: dict[str, str] = {}  # the path of the first
        self._by_pixels: dict[str, str] = {}
        self._blocks: list[tuple[Array, Array]] = []  # hashes and gists; blocks, as a growing array is copied

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, look: Look, path: str) -> None:
        """Remembers a picture and where its file lies."""
        self._by_bytes.setdefault(look.image_id, path)
        self._by_pixels.setdefault(look.pixels, path)
        block, place = divmod(len(self), _BLOCK)
        if block == len(self._blocks):
            self._blocks.append((np.zeros(_BLOCK, np.uint64), np.zeros((_BLOCK, GIST_BYTES), np.uint8)))
        hashes, gists = self._blocks[block]
        hashes[place], gists[place] = look.hash, np.frombuffer(look.gist, np.uint8)
        self._paths.append(path)

    def match(self, look: Look, picture: Callable[[], Image.Image], *, near: bool) -> Match | None:
        """The first picture seen that this one duplicates, preferring equal bytes, then equal pixels, then near copies.

        Args:
            look: The look of the new picture.
            picture: Opens it; called only if the hash finds a candidate.
            near: Whether re-encoded and resized pictures are looked for.
        """
        for how, seen, identity in ((BYTES, self._by_bytes, look.image_id), (PIXELS, self._by_pixels, look.pixels)):
            first = seen.get(identity)
            if first is not None:
                return Match(how, first)
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
                yield self._paths[start + place]


class Names:
    """A multiset of the names that an earlier process has done."""

    def __init__(self, names: Iterable[str]) -> None:
        self._times = Counter(names)

    def take(self, name: str) -> bool:
        """Whether the name was done before, or done again and not yet taken that often."""
        if not self._times[name]:
            return False
        self._times[name] -= 1
        return True


def _places_alike(look: Look, hashes: Array, gists: Array) -> list[int]:
    """Indices of candidates in a block; hashes (pictures,), gists (at least as many, 16)."""
    near = np.flatnonzero(np.bitwise_count(hashes ^ np.uint64(look.hash)) <= HASH_BITS_APART)
    apart = np.abs(gists[near].astype(np.int16) - np.frombuffer(look.gist, np.uint8))
    places: list[int] = near[(apart <= GIST_LEVELS_APART).all(axis=1)].tolist()
    return places


def _same(picture: Image.Image, path: str) -> bool:
    try:
        return same_picture(picture, read_picture(Path(path)))
    except Unfit:  # removed or changed since it was seen
        return False
