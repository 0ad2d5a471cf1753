"""Which part of a picture a processor shows in each tile, after it has resized, cropped, padded and cut it.

This is measured and not computed again: pictures of the same size whose colours tell where a pixel lies go through the
processor itself. So it holds for any setting, and for the resizing of Pillow and of torchvision.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from parityalign.models.encoding import Array

Size = tuple[int, int]
"""Width and height of a picture in pixels."""
Extent = tuple[float, float]
"""Start and end along one side of a picture, in fractions of that side; beyond 0 and 1 lies padding."""

_ENOUGH = 8
"""Pixels that a straight line is laid through."""
_STEP = 1 / 255
"""What 8 bits can tell apart."""


class VisionProcessor(Protocol):
    """What is needed of transformers' processors besides `encoding.Processor`; the last three not of each of them."""

    image_token: str
    """What stands for the picture in a prompt before it is spelt out."""
    image_token_ids: list[int]
    """The token that stands for a place of the picture, then those around it."""
    image_processor: Any
    patch_size: int
    num_image_tokens: int
    vision_aspect_ratio: str

    def __call__(self, *, images: list[Image.Image], text: list[str], return_tensors: str) -> dict[str, Any]:
        """Everything that the model takes."""


@dataclass(frozen=True)
class Tiles:
    """What a processor makes of pictures of one size.

    A profile is (tiles, 2, pixels), summed over the other side of each tile: first position times light, then light.
    Position runs from 0 to 1 along the picture's side; light is how much of the picture, rather than padding, is shown.
    """

    size: Size
    tokens: int
    """Image tokens of a prompt with one such picture."""
    across: Array
    """Profile from left to right."""
    down: Array
    """Profile from top to bottom."""

    def __len__(self) -> int:
        """How many tiles there are."""
        return len(self.across)

    @property
    def width(self) -> int:
        """Of a tile, in pixels."""
        return int(self.across.shape[-1])

    @property
    def height(self) -> int:
        """Of a tile, in pixels."""
        return int(self.down.shape[-1])

    def lines(self, laid: Array, rows: int, columns: int) -> tuple[Array, Array]:
        """The rows and columns of tokens of tiles that are laid side by side to show a part of the picture.

        Args:
            laid: (rows, columns) Numbers of the tiles.
            rows: Of tokens in a tile.
            columns: Of tokens in a tile.

        Returns:
            (all rows, 2) Top and bottom of each row, and (all columns, 2) left and right of each column.
        """
        down = _extent(np.hstack(list(self.down[laid].sum(axis=1))), self.size[1])
        across = _extent(np.hstack(list(self.across[laid].sum(axis=0))), self.size[0])
        high, wide = laid.shape
        return spans(down, self.height, rows, high), spans(across, self.width, columns, wide)


def spans(extent: Extent, pixels: int, tokens: int, tiles: int = 1) -> Array:
    """Start and end of each token along one side of tiles.

    Args:
        extent: What all these tiles together show.
        pixels: Of a tile along this side.
        tokens: Of a tile along this side.
        tiles: How many are laid in a row.

    Returns:
        (tiles * tokens, 2) In fractions of the picture's side.
    """
    # Vision towers read whole patches only: what is left of 384 pixels after 27 patches of 14 is not seen.
    patch = pixels // tokens
    starts = (np.arange(tiles)[:, None] * pixels + np.arange(tokens) * patch).ravel()
    edges = np.stack([starts, starts + patch], axis=1) / (tiles * pixels)
    found: Array = extent[0] + edges * (extent[1] - extent[0])
    return found


def tiles_of(processor: VisionProcessor, size: Size) -> Tiles:
    """What the processor makes of pictures of this size."""
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    features = read(processor, picture)
    # Subtracting what became of black leaves nothing of normalisation's shift and of padding, whatever their values.
    black = _pixels(features)
    light = _pixels(read(processor, np.full_like(picture, 255))) - black
    picture[..., 0] = np.rint((np.arange(width) + 0.5) / width * 255)
    picture[..., 1] = np.rint((np.arange(height) + 0.5) / height * 255)[:, None]
    places = _pixels(read(processor, picture)) - black
    # Red with red and green with green: each channel is normalised in its own way.
    across = np.stack([summed[:, 0].sum(axis=1, dtype=float) for summed in (places, light)], axis=1)
    down = np.stack([summed[:, 1].sum(axis=2, dtype=float) for summed in (places, light)], axis=1)
    tokens = np.asarray(features["input_ids"]) == processor.image_token_ids[0]
    return Tiles(size, int(tokens.sum()), across, down)


def read(processor: VisionProcessor, picture: Array) -> dict[str, Any]:
    """What the model takes for a picture (height, width, 3) and no words."""
    return processor(images=[Image.fromarray(picture)], text=[processor.image_token], return_tensors="pt")


def _pixels(features: dict[str, Any]) -> Array:
    """(tiles, 3, height, width) The pictures that the vision tower sees."""
    pixels = np.asarray(features["pixel_values"], dtype=np.float32)
    return pixels.reshape(-1, *pixels.shape[-3:])


def _extent(profile: Array, pixels: int) -> Extent:
    """Which part of the picture's side, of so many pixels, a row of a tile's pixels shows: a line laid through them."""
    places, light = profile
    if not light.max() > 0:
        return math.nan, math.nan
    seen = np.flatnonzero(light > light.max() / 2)
    at = places[seen] / light[seen]
    first, end = int(seen[0]), int(seen[-1]) + 1
    # Outside the middles of the outermost pixels resizing has nothing to go between, and repeats them.
    rim = 0.5 / pixels
    clear = (at > rim + _STEP / 2) & (at < 1 - rim - _STEP / 2)
    if clear.sum() >= _ENOUGH:
        slope, start = np.polyfit(seen[clear] + 0.5, at[clear], 1)
        low, high = start + slope * first, start + slope * end
    else:  # few pixels, here or in the picture: up to the outer edges of those that are shown
        margin = max(rim, 0.5 * np.ptp(at) / (len(at) - 1) if len(at) > 1 else 0.5)
        low, high = at.min() - margin, at.max() + margin
    low, high = max(0.0, float(low)), min(1.0, float(high))
    slope = (high - low) / (end - first)
    return low - slope * first, high + slope * (len(light) - end)
