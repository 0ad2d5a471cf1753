"""Pixels in 8 bits, as a processor has them before it rescales and normalises, and what it would make of each.

Image processors resize and cut a picture in 8 bits, then rescale and normalise each value by its channel alone. A
channel has 256 values, so a small table says what becomes of each, to the bit. Pixels in 8 bits take a quarter of the
memory and half of the time, and become numbers on the model's device. Whether a processor works so is tried out on
drawn pictures.
"""

import copy
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from parityalign.core import content_id

PIXELS = "pixel_values"
_CHANNELS, _LEVELS = 3, 256
_SHAPES = ((61, 47), (24, 90), (90, 24))
"""Width and height of the pictures that are tried: processors cut and pad wide and tall ones differently."""

_known: dict[str, "torch.Tensor | None"] = {}
"""By processor settings; trying takes a second or two for processors that enlarge every picture."""
_trying = Lock()
"""All threads that prepare pictures want to know at once."""


class EightBits(NamedTuple):
    """How to get a processor's pixels in 8 bits."""

    processor: Any
    """The same processor, without rescaling and normalising."""
    levels: torch.Tensor
    """(3, 256) What the processor makes of each value of each channel."""


def eight_bits(processor: Any, read: Callable[[Any, Image.Image], Any]) -> EightBits | None:  # noqa: ANN401
    """How to get the processor's pixels in 8 bits; None: its pixels do not follow from 8 bits by a table.

    Args:
        processor: Any of transformers'.
        read: The model inputs that a processor makes of a picture.
    """
    try:
        key, bare = settings_key(processor), _stopping_early(processor)
        with _trying:
            if key not in _known:
                _known[key] = _levels_tried(processor, bare, read)
    except Exception:  # noqa: BLE001 - whatever a stranger's processor raises: then it is used as it is
        return None
    levels = _known[key]
    return None if levels is None else EightBits(bare, levels)


def known_levels() -> dict[str, "torch.Tensor | None"]:
    """What trying has shown, by processor settings."""
    with _trying:
        return {**_known}


def remember_levels(found: Mapping[str, "torch.Tensor | None"]) -> None:
    """Spares this process the trials of another."""
    with _trying:
        _known.update(found)


def settings_key(processor: Any) -> str:  # noqa: ANN401
    """A digest of everything in a processor's settings that its pixels depend on."""
    pictures = processor.image_processor
    names = (type(processor).__name__, type(pictures).__name__)
    return content_id(*names, processor.to_json_string(), pictures.to_json_string())


def numbers_of(codes: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """What pixels in 8 bits stand for, in the precision and on the device of the table.

    Args:
        codes: (..., 3, height, width), or (patches, 3 x numbers of a patch's channel).
        levels: (3, 256)
    """
    by_channel = codes if codes.ndim > 3 else codes.view(len(codes), _CHANNELS, -1, 1)
    first = torch.arange(_CHANNELS, device=codes.device, dtype=torch.int32)[:, None, None] * _LEVELS
    return levels.flatten().index_select(0, (by_channel.int() + first).flatten()).view(codes.shape)


def _stopping_early(processor: Any) -> Any:  # noqa: ANN401
    bare = copy.copy(processor)
    bare.image_processor = copy.copy(processor.image_processor)
    bare.image_processor.do_rescale = bare.image_processor.do_normalize = False
    return bare


def _levels_tried(
    processor: Any,  # noqa: ANN401
    bare: Any,  # noqa: ANN401
    read: Callable[[Any, Image.Image], Any],
) -> torch.Tensor | None:
    levels = _levels(processor.image_processor)
    same = all(_same(read(processor, picture), read(bare, picture), levels) for picture in map(drawn, _SHAPES))
    return levels if same else None


def _levels(pictures: Any) -> torch.Tensor:  # noqa: ANN401
    """What the image processor itself makes of each value."""
    values: Any = np.broadcast_to(np.arange(_LEVELS, dtype=np.uint8), (_CHANNELS, 1, _LEVELS)).copy()
    if pictures.do_rescale:
        values = pictures.rescale(values, pictures.rescale_factor)
    if pictures.do_normalize:
        values = pictures.normalize(values, pictures.image_mean, pictures.image_std)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32).reshape(_CHANNELS, _LEVELS))


def _same(whole: Any, early: Any, levels: torch.Tensor) -> bool:  # noqa: ANN401
    """Whether a processor's output follows from the one that stopped early, to the bit."""
    pixels, codes = np.asarray(whole[PIXELS]), np.asarray(early[PIXELS])
    rest = whole.keys() - {PIXELS}
    if whole.keys() != early.keys() or pixels.dtype != np.float32 or not (codes == codes.astype(np.uint8)).all():
        return False
    made = numbers_of(torch.from_numpy(codes.astype(np.uint8)), levels).numpy()
    others = all(np.array_equal(np.asarray(whole[key]), np.asarray(early[key])) for key in rest)
    return bool(others and np.array_equal(made, pixels))


def drawn(size: tuple[int, int]) -> Image.Image:
    """Noise in colours: every value occurs, in every channel."""
    noise = np.random.default_rng(0).integers(0, _LEVELS, (size[1], size[0], _CHANNELS), dtype=np.uint8)
    return Image.fromarray(noise)
