"""Pillow's resizing on a model's device, to the bit.

Pillow resizes 8-bit images in integers, along the rows and then along the columns, or the other way round; a pass is
left out where the side stays as it is (`src/libImaging/Resample.c`). Each new value is a weighted sum of neighbours.
Weights are computed in double precision, then rounded to multiples of 2**-22: sums of any device are the same.

A pass is one product of matrices. Most of their numbers are zeros, but a GPU is fast at it, and what takes the time
otherwise is starting its kernels. The products are exact in float32, in any order: a weight goes in as two parts of 11
bits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

Doubles = NDArray[np.float64]

_PRECISION = 32 - 8 - 2
"""Bits of a weight behind the point: with a value's 8 bits, and 2 for sums of weights beyond 1, they fill 32."""
_MOST_TAPS = 28
"""Neighbours whose weights' lower parts sum up to less than 2**24, with what is added to round: float32 holds that."""
_MOST_SUMS = 2**26
"""Sums, or old values, that are in memory at once, 4 or 8 bytes each."""
_WEIGHTS_KEPT = 256
_SINCE_13 = int(PIL.__version__.split(".")[0]) >= 13
_TRIED = 20
"""Shapes that each filter is tried on."""


class _Filter(NamedTuple):
    """How much a neighbour counts."""

    reach: float
    """From which distance on it does not, in pixels of the smaller image."""
    weight: Callable[[Doubles], Doubles]
    """By distance."""


class _Weights(NamedTuple):
    """What becomes of a side."""

    places: torch.Tensor
    """(taps, 1, new side): which old values each new one is made of."""
    factors: torch.Tensor
    """(taps, parts, new side): how much each of them counts, times 2**22. In float32 as two parts, a multiple of 2**11
    and the rest, the one divided by 2**11; where there are many taps as a whole, in float64."""

    def matrix(self, before: int) -> torch.Tensor:
        """(old side, parts x new side): the factors of a product."""
        whole = self.factors.new_zeros(before, *self.factors.shape[1:])
        return whole.scatter_add_(0, self.places.expand_as(self.factors), self.factors).flatten(1)


def _lanczos(x: Doubles) -> Doubles:
    return np.where((x >= -3) & (x < 3), _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: Doubles) -> Doubles:
    turned = np.where(x == 0, 1.0, x * np.pi)
    return np.where(x == 0, 1.0, np.sin(turned) / turned)


def _hamming(x: Doubles) -> Doubles:
    return np.where(np.abs(x) < 1, _sinc(np.abs(x)) * (0.54 + 0.46 * np.cos(np.abs(x) * np.pi)), 0.0)


def _bicubic(x: Doubles) -> Doubles:
    x, a = np.abs(x), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    return np.where(x < 1, near, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * a, 0.0))


_FILTERS = {
    Resampling.BOX: _Filter(0.5, lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)),
    Resampling.BILINEAR: _Filter(1.0, lambda x: np.where(np.abs(x) < 1, 1 - np.abs(x), 0.0)),
    Resampling.HAMMING: _Filter(1.0, _hamming),
    Resampling.BICUBIC: _Filter(2.0, _bicubic),
    Resampling.LANCZOS: _Filter(3.0, _lanczos),
}


def can_resize(before: tuple[int, int], after: tuple[int, int], resample: int) -> bool:
    """Whether the resizing of an image of this height and width is one of those that are computed here.

    Of images more than a hundred times as high as wide, Pillow 12 takes the columns first from some version on.
    """
    known = _SINCE_13 or before[0] <= 100 * before[1] or after[0] >= before[0]
    return resample in _FILTERS and min(after) > 0 and known


def resized(images: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor:
    """What `PIL.Image.resize` makes of images.

    Args:
        images: (..., height, width) uint8, each channel by itself.
        size: The new height and width.
        resample: One of `PIL.Image.Resampling`, except NEAREST.

    Returns:
        (..., new height, new width) uint8, on the same device.
    """
    height, width = images.shape[-2:]
    passes = [
        (_along_rows, _weights(width, size[1], resample, images.device)) if width != size[1] else None,
        (_along_columns, _weights(height, size[0], resample, images.device)) if height != size[0] else None,
    ]
    with _exact_products(images.device):
        for along, weights in filter(None, reversed(passes) if _columns_first((height, width), size) else passes):
            images = along(images, weights)
    return images


def by_pillow(images: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor:
    """The same by Pillow itself, on a CPU."""
    channels = [Image.fromarray(each.numpy()) for each in images.reshape(-1, *images.shape[-2:])]
    made = [np.array(each.resize((size[1], size[0]), Resampling(resample))) for each in channels]
    return torch.from_numpy(np.stack(made)).view(*images.shape[:-2], *size)


def _columns_first(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether the columns come first, as since Pillow 13 where the height shrinks by much more than the width."""
    less_height, less_width = before[0] - after[0], before[1] - after[1]
    return _SINCE_13 and less_height > max(0, 2 * less_width)


@cache
def as_pillow_does_it() -> bool:
    """Whether this version of Pillow makes the same of small images of many shapes; the next may sum otherwise."""
    random = np.random.default_rng(0)
    for resample in _FILTERS:
        for sides in random.integers(1, 40, (_TRIED, 4)):
            height, width, *size = map(int, sides)
            image = torch.from_numpy(random.integers(0, 256, (height, width), dtype=np.uint8))
            if not torch.equal(*(each(image, (size[0], size[1]), resample) for each in (resized, by_pillow))):
                return False
    return True


@contextmanager
def _exact_products(device: torch.device) -> Iterator[None]:
    """Inside, products of matrices are in the precision of their factors, whatever else a program allows."""
    backend: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    products = getattr(backend, "matmul", backend)  # before torch 2.9 a CPU's had no settings of their own
    name, exact = ("fp32_precision", "ieee") if hasattr(products, "fp32_precision") else ("allow_tf32", False)
    before = getattr(products, name, exact)
    setattr(products, name, exact)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        setattr(products, name, before)


def _along_rows(images: torch.Tensor, weights: _Weights) -> torch.Tensor:
    before, after = images.shape[-1], weights.factors.shape[-1]
    factors = weights.matrix(before)
    made = [
        _rounded((rows.to(factors.dtype) @ factors).view(len(rows), -1, after).unbind(1))
        for rows in torch.split(images.reshape(-1, before), max(1, _MOST_SUMS // max(factors.shape)))
    ]
    return _together(made).view(*images.shape[:-1], after)


def _along_columns(images: torch.Tensor, weights: _Weights) -> torch.Tensor:
    (before, width), after = images.shape[-2:], weights.factors.shape[-1]
    factors = weights.matrix(before).T
    made = [
        _rounded((factors @ each.to(factors.dtype)).view(len(each), -1, after, width).unbind(1))
        for each in torch.split(images.reshape(-1, before, width), max(1, _MOST_SUMS // (max(factors.shape) * width)))
    ]
    return _together(made).view(*images.shape[:-2], after, width)


def _together(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _rounded(sums: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Sums with weights times 2**22, or with their upper and lower parts, as values."""
    carried: Any = 1 << (_PRECISION - 1)
    for part in reversed(sums):
        carried = part.add_(carried).mul_(2.0 ** -(_PRECISION // len(sums))).floor_()
    return carried.clamp_(0, 255).to(torch.uint8)  # type: ignore[no-any-return]


@lru_cache(_WEIGHTS_KEPT)
def _weights(before: int, after: int, resample: int, device: torch.device) -> _Weights:
    """Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`, in the same order of operations."""
    chosen, scale = _FILTERS[Resampling(resample)], before / after
    stretch = max(scale, 1.0)
    reach = chosen.reach * stretch
    centres = (np.arange(after) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + reach + 0.5).astype(np.int64), before)
    steps = np.arange((end - first).max())[:, None]
    places = first + steps
    weights: Any = np.where(places < end, chosen.weight((places - centres + 0.5) * (1.0 / stretch)), 0.0)
    total = np.add.accumulate(weights)[-1]  # one after the other, as there, and not in pairs as `sum` adds
    weights = np.divide(weights, total, out=weights, where=total != 0) * (1 << _PRECISION)
    factors = np.trunc(weights + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    if len(factors) <= _MOST_TAPS:
        lower_bits = _PRECISION // 2
        parts: Any = np.stack([factors >> lower_bits, factors & ((1 << lower_bits) - 1)], 1).astype(np.float32)
    else:
        parts = factors[:, None].astype(np.float64)
    moved = torch.from_numpy(np.minimum(places, before - 1)[:, None]).to(device)
    return _Weights(moved, torch.from_numpy(parts).to(device))
