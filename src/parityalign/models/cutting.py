"""Pictures that travel as their own pixels and are resized and cut on the model's device.

A processor that enlarges a picture makes four times as many bytes of it, or more, in most of its time. How it would cut
a picture of this size (see tracing.py) is a few numbers; a GPU does the rest.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from parityalign.models.resizing import resized

Array = NDArray[Any]
Resizing = Callable[[torch.Tensor, tuple[int, int], int], torch.Tensor]
"""(images (..., height, width) in 8 bits, new size, one of `PIL.Image.Resampling`) -> resized"""
_CPU = torch.device("cpu")
_AT_ONCE = 8
"""Pictures that are cut at once at most, which bounds the memory of what they are enlarged to."""


class Later(Protocol):
    """An array that is made when and where it is needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """What it will have."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Likewise."""

    @property
    def nbytes(self) -> int:
        """What is in memory until then."""

    def on(self, device: torch.device) -> torch.Tensor:
        """The array."""


class Box(NamedTuple):
    """A rectangle of an image."""

    image: int
    """0 is the picture itself, the others are those of `Cuts.resizes`, from 1 on."""
    top: int
    left: int
    height: int
    width: int

    def of(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """(..., 3, height, width) Its pixels."""
        return images[self.image][..., self.top : self.top + self.height, self.left : self.left + self.width]


class Resize(NamedTuple):
    """A new image."""

    box: Box
    """What it is made of."""
    size: tuple[int, int]
    """Its height and width."""
    resample: int
    """One of `PIL.Image.Resampling`."""


@dataclass(frozen=True)
class Cuts:
    """How a processor cuts pictures of one size."""

    resizes: tuple[Resize, ...]
    tiles: tuple[Box, ...]
    shape: tuple[int, ...]
    """(..., 3, height, width) Of all tiles together."""

    @property
    def nbytes(self) -> int:
        """Of all tiles."""
        return prod(self.shape)

    def of(self, pictures: torch.Tensor, resize: Resizing = resized) -> torch.Tensor:
        """(pictures, ...) The tiles of pictures, in 8 bits.

        Args:
            pictures: (pictures, height, width, 3) uint8.
            resize: What resizes.
        """
        images = [pictures.permute(0, 3, 1, 2)]
        for box, size, resample in self.resizes:
            images.append(resize(box.of(images), size, resample))
        return torch.stack([tile.of(images) for tile in self.tiles], 1).view(-1, *self.shape)


@dataclass(frozen=True)
class Uncut:
    """A picture in place of its tiles."""

    picture: Array
    """(height, width, 3) uint8"""
    cuts: Cuts

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its tiles."""
        return self.cuts.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its tiles, and of the picture."""
        return self.picture.dtype

    @property
    def nbytes(self) -> int:
        """Of the picture."""
        return self.picture.nbytes

    def on(self, device: torch.device) -> torch.Tensor:
        """Its tiles in 8 bits."""
        return self.cuts.of(_moved(self.picture, device)[None])[0]


@dataclass(frozen=True)
class Same:
    """A large array with a single value, such as a mask of pixels where none is padding."""

    value: Array
    """(1,)"""
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: Array) -> "Same | None":
        """An array that has one value; None: it has several."""
        first = array.reshape(-1)[:1]
        return cls(first.copy(), array.shape) if array.size and (array == first).all() else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the value."""
        return self.value.dtype

    @property
    def nbytes(self) -> int:
        """Of the value."""
        return self.value.nbytes

    def on(self, device: torch.device) -> torch.Tensor:
        """The array, which takes no memory."""
        return _moved(self.value, device).expand(self.shape)


def on_device(values: Array | Later, device: torch.device = _CPU) -> torch.Tensor:
    """An array, or one that is yet to be made, as a tensor."""
    return _moved(values, device) if isinstance(values, np.ndarray) else values.on(device)


def each_on_device(arrays: Sequence[Array | Later], device: torch.device) -> Iterator[torch.Tensor]:
    """Likewise of several, each as (first axis, ...): pictures of one size that follow each other are cut at once."""

    def size(array: Array | Later) -> tuple[int, ...] | None:
        return array.picture.shape if isinstance(array, Uncut) else None

    for _, group in groupby(arrays, size):
        alike = [*group]
        uncut = [array for array in alike if isinstance(array, Uncut)]
        for start in range(0, len(uncut), _AT_ONCE):
            pictures = torch.stack([_moved(each.picture, device) for each in uncut[start : start + _AT_ONCE]])
            yield from uncut[0].cuts.of(pictures)
        if not uncut:
            yield from (on_device(array, device) for array in alike)


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor in this machine's memory on a device, without waiting for what a GPU was asked before."""
    if device.type != "cuda":
        return tensor.to(device)
    with suppress(RuntimeError):  # no more memory may be pinned
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _moved(array: Array, device: torch.device) -> torch.Tensor:
    return sent(torch.from_numpy(array), device)
