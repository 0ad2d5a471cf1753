"""How a processor cuts a picture of some size, found out by following it.

Its image processor runs with all its own arithmetic, on images that nobody fills: a new class between the family's and
transformers' notes what is resized, and which rectangle of which image each tile is. A rectangle is known by where in
an image's memory it begins. What is not a plain rectangle, such as padding or patches, is not followed.
"""

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from math import prod
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from parityalign.models.cutting import Array, Box, Cuts, Resize
from parityalign.models.eight_bits import PIXELS, drawn, eight_bits, known_levels, remember_levels, settings_key
from parityalign.models.resizing import as_pillow_does_it, by_pillow, can_resize

Read = Callable[[Any, Image.Image], Any]
"""(processor, picture) -> its features"""

_CHANNELS, _MOST_TILES = 3, 255
_SIZES = ((61, 47), (24, 90), (130, 110))
"""Width and height of the pictures that are tried."""
_known: dict[str, bool] = {}
"""By processor settings."""
_trying = Lock()
"""All threads that prepare pictures want to know at once."""


class _NotFollowed(Exception):
    """The processor does something else than to resize and to cut."""


@dataclass
class _Alone:
    """An image processor in place of a whole processor."""

    image_processor: Any

    def to_json_string(self) -> str:
        """Nothing that pixels depend on."""
        return ""

    def read(self, picture: Image.Image) -> Any:  # noqa: ANN401
        """What it makes of a picture."""
        return self.image_processor(images=[picture], return_tensors="pt")


class _Seen:
    """What a processor has done so far."""

    def __init__(self) -> None:
        self.images: list[Array] = []
        self.resizes: list[Resize] = []
        self.tiles: list[Box] = []

    def image(self, height: int, width: int) -> Array:
        """A new image; memory that nobody writes to is not taken."""
        self.images.append(np.empty((_CHANNELS, height, width), np.uint8))
        return self.images[-1]

    def box(self, part: Array) -> Box:
        """Which rectangle of which image this is."""
        number = next((place for place, image in enumerate(self.images) if part is image or part.base is image), None)
        if number is None:
            raise _NotFollowed
        whole = self.images[number]
        row = whole.strides[1]
        top, left = divmod(_address(part) - _address(whole), row)
        height, width = part.shape[-2:]
        plain = part.shape[:-2] == (_CHANNELS,) and part.strides == whole.strides
        if not plain or not 0 <= top <= whole.shape[1] - height or left + width > row:
            raise _NotFollowed
        return Box(number, top, left, height, width)


class _Followed:
    """Stands between a family's image processor and transformers' own, in place of the latter."""

    seen: _Seen

    def process_image(self, image: Any, *_: object, **__: object) -> Array:  # noqa: ANN401 - as in transformers
        """The picture itself."""
        if self.seen.images:
            raise _NotFollowed
        return self.seen.image(image.height, image.width)

    def resize(
        self,
        image: Array,
        size: Any,  # noqa: ANN401
        resample: int | None = None,
        reducing_gap: int | None = None,
        **_: object,
    ) -> Array:
        """A new image."""
        after, (height, width) = (size.height, size.width), image.shape[-2:]
        resample = Image.Resampling.BILINEAR if resample is None else resample
        plain = None not in after and isinstance(resample, int) and reducing_gap is None
        if not plain or not can_resize((height, width), after, resample):
            raise _NotFollowed
        self.seen.resizes.append(Resize(self.seen.box(image), after, int(resample)))
        return self.seen.image(*after)

    def rescale(self, image: Array, *_: object, **__: object) -> Array:
        """A tile, by its number from 1 on."""
        self.seen.tiles.append(self.seen.box(image))
        if len(self.seen.tiles) > _MOST_TILES:
            raise _NotFollowed
        return np.broadcast_to(np.uint8(len(self.seen.tiles)), image.shape)


def cuts_of(processor: Any, size: tuple[int, int], read: Read) -> tuple[Cuts, dict[str, Any]] | None:  # noqa: ANN401
    """How a processor cuts a picture, and its features without the pixels.

    Args:
        processor: Any of transformers'.
        size: Width and height of the picture.
        read: The model inputs that a processor makes of a picture.

    Returns:
        None if it does something else.
    """
    try:
        followed, seen = _followed(processor)
        features = read(followed, Image.new("RGB", size))
        rest = {key: features[key] for key in features if key != PIXELS}
        return _cuts(seen, np.asarray(features[PIXELS])), rest
    except Exception:  # noqa: BLE001 - whatever a stranger's processor raises where it is followed
        return None


def cuts_by(image_processor: Any, size: tuple[int, int]) -> Cuts | None:  # noqa: ANN401
    """How an image processor, whose tokenizer is not at hand, cuts a picture into more bytes than the picture has.

    Args:
        image_processor: Any of transformers'.
        size: Width and height of the picture.

    Returns:
        None if its tiles have no more bytes than the picture, or cannot be cut without it.
    """
    alone = _Alone(image_processor)
    known = eight_bits(alone, _Alone.read)
    if known is None or not can_be_followed(alone, known.processor, _Alone.read):
        return None
    found = cuts_of(known.processor, size, _Alone.read)
    return found[0] if found and found[0].nbytes > _CHANNELS * prod(size) else None


def can_be_followed(processor: Any, bare: Any, read: Read) -> bool:  # noqa: ANN401
    """Whether a processor's pixels, tokens and all else are equal, to the bit, where pictures are cut as it would.

    Args:
        processor: Any of transformers'.
        bare: The same without rescaling and normalising.
        read: The model inputs that a processor makes of a picture.
    """
    key = settings_key(processor)
    with _trying:
        if key not in _known:
            _known[key] = False
            with suppress(Exception):
                _known[key] = as_pillow_does_it() and _tried(bare, read)
        return _known[key]


class Tried(NamedTuple):
    """What trying processors has shown, by their settings."""

    levels: dict[str, torch.Tensor | None]
    """See `EightBits.levels`; None: pixels do not follow from 8 bits."""
    followed: dict[str, bool]
    """See `can_be_followed`."""


def tried() -> Tried:
    """What this process knows, for others."""
    levels = known_levels()
    with _trying:
        return Tried(levels, {**_known})


def remember(found: Tried) -> None:
    """Spares this process the trials of another."""
    remember_levels(found.levels)
    with _trying:
        _known.update(found.followed)


def _tried(bare: Any, read: Read) -> bool:  # noqa: ANN401
    """Whether some of the drawn pictures can be followed, and all of these are cut alike."""
    traced = [(drawn(size), cuts_of(bare, size, read)) for size in _SIZES]
    followed = [(picture, found) for picture, found in traced if found]
    return bool(followed) and all(_same(read(bare, picture), picture, *found) for picture, found in followed)


def _same(expected: Any, picture: Image.Image, cuts: Cuts, features: dict[str, Any]) -> bool:  # noqa: ANN401
    """Whether a processor's output follows from the picture and from its size."""
    # By Pillow, since a core takes long for what a GPU does at once.
    tiles = cuts.of(torch.from_numpy(np.array(picture))[None], by_pillow)[0]
    if expected.keys() - {PIXELS} != features.keys() or not np.array_equal(tiles, np.asarray(expected[PIXELS])):
        return False
    return all(np.array_equal(np.asarray(expected[key]), np.asarray(features[key])) for key in features)


def _followed(processor: Any) -> tuple[Any, _Seen]:  # noqa: ANN401
    """The processor, with an image processor whose work is noted."""
    followed, pictures = copy.copy(processor), copy.copy(processor.image_processor)
    family: type = type(pictures)
    pictures.__class__ = _class_between(family)
    pictures.seen = seen = _Seen()
    pictures.do_rescale, pictures.do_normalize = True, False
    followed.image_processor = pictures
    return followed, seen


@cache
def _class_between(family: type) -> type:
    """A family's image processor with `_Followed` as what it builds upon."""
    from transformers.image_processing_backends import PilBackend  # noqa: PLC0415 - seconds, for a GPU alone

    return type(family.__name__, (family, type("_Followed", (_Followed, PilBackend), {})), {})


def _cuts(seen: _Seen, pixels: Array) -> Cuts:
    """How the tiles lie in the pixels, where each has its number."""
    numbers = pixels.reshape(-1, *pixels.shape[-3:])
    first = numbers[:, 0, 0, 0]
    if not first.all() or not (numbers == first[:, None, None, None]).all():
        raise _NotFollowed
    tiles = tuple(seen.tiles[int(number) - 1] for number in first)
    if any((_CHANNELS, tile.height, tile.width) != numbers.shape[1:] for tile in tiles):
        raise _NotFollowed
    return Cuts(tuple(seen.resizes), tiles, pixels.shape)


def _address(image: Array) -> int:
    place: int = image.__array_interface__["data"][0]
    return place
