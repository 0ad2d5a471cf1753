"""Where on the picture each image token looks, so that attention maps of different families mean the same place.

Which part of the picture a tile shows is measured (`tiles.py`); only the order of a tile's tokens, and of the tiles,
is every family's own. Written against transformers' processors without importing them, like `encoding.py`.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from parityalign.core import UserError
from parityalign.models.encoding import Array, Processor
from parityalign.models.tiles import Size, Tiles, VisionProcessor, read, spans, tiles_of

GRID = 8
"""Cells of a map along each side."""
_SIZES_KEPT = 1024
"""Of how many picture sizes the boxes are kept: finding them costs as much as preparing three pictures."""


class Placed(NamedTuple):
    """The image tokens of one prompt."""

    positions: Array
    """(places,) Where they stand among the prompt's tokens."""
    boxes: Array
    """(places, 4) The part of the picture that each stands for: see `TokenBoxes.boxes`."""


class TokenBoxes:
    """Knows which part of a picture each image token of one processor stands for."""

    def __init__(self, processor: Processor) -> None:
        """Raises a UserError where the order of the family's image tokens is not known."""
        layout = _layout(processor)
        if layout is None:
            known = ", ".join(sorted(name.removesuffix("Processor") for name in _LAYOUTS))
            raise UserError(
                f"attention cannot be placed for {_family(processor)}: the order of its image tokens is not known.\n"
                f"Known: {known}. Take a model of one of these, or leave out what compares attention."
            )
        self._processor: Any = processor  # has what its family needs of `VisionProcessor`
        self._layout = layout
        self._kept = lru_cache(_SIZES_KEPT)(self._find)

    def boxes(self, size: Size) -> Array:
        """The part of the picture that each image token stands for, the same for all pictures of a size.

        Args:
            size: Width and height of the picture in pixels.

        Returns:
            (places, 4) Left, top, right and bottom in fractions of the picture's width and height. A box reaches over
            the picture's edge where its token shows padding as well. NaN for a token that stands for no place.
        """
        return self._kept(size)

    def locate(self, size: Size, tokens: Sequence[int]) -> Placed:
        """The image tokens of a prompt, as `Encoded.tokens` has them, that shows one picture of this size.

        Raises:
            UserError: The prompt has another number of image tokens than the picture has places.
        """
        positions = np.flatnonzero(np.asarray(tokens) == self._processor.image_token_ids[0])
        boxes = self.boxes(size)
        if len(positions) != len(boxes):
            raise UserError(
                f"attention cannot be placed for {_family(self._processor)}: the prompt has {len(positions)} image "
                f"tokens, a picture of {size[0]}x{size[1]} pixels has {len(boxes)} places. "
                "Encode the prompt with the same processor, with one image, and do not cut it off."
            )
        return Placed(positions, boxes)

    def _find(self, size: Size) -> Array:
        boxes = self._layout(self._processor, size).astype(np.float32)
        boxes.setflags(write=False)
        return boxes


def can_place(processor: Processor) -> bool:
    """Whether the order of the processor's image tokens is known."""
    return _layout(processor) is not None


def spread_over_cells(boxes: Array, grid: int = GRID) -> Array:
    """How a token's attention is shared out: `attention (..., tokens) @ spread` is attention on the picture's cells.

    Args:
        boxes: (tokens, 4) As `TokenBoxes.boxes` gives them.
        grid: Cells along each side.

    Returns:
        (tokens, grid * grid) The part of each box that lies in each cell, cells row by row. A row sums to 1 where the
        box lies in the picture, to less where it reaches over the edge, and to 0 where the token has no place.
    """
    down, across = _overlaps(boxes[:, [1, 3]], grid), _overlaps(boxes[:, [0, 2]], grid)
    shares: Array = down[:, :, None] * across[:, None, :]
    return shares.reshape(len(boxes), grid * grid)


def pooled(weights: Array, boxes: Array, grid: int = GRID) -> Array:
    """Attention on the image tokens as a map of the picture that sums to 1.

    Overview and details both count, where a family shows the picture more than once.

    Args:
        weights: (tokens,) Attention on each image token, not negative.
        boxes: (tokens, 4) As `TokenBoxes.boxes` gives them.
        grid: Cells along each side.

    Returns:
        (grid, grid) Rows from top to bottom; all zeros where no attention lies on the picture.
    """
    cells: Array = (weights @ spread_over_cells(boxes, grid)).reshape(grid, grid)
    total = float(cells.sum())
    return cells if total == 0 else np.asarray(cells / total)


def _overlaps(intervals: Array, grid: int) -> Array:
    """(tokens, grid) The part of each interval (tokens, 2) that lies in each of the equal parts of 0..1."""
    edges = np.linspace(0, 1, grid + 1)
    start, end = intervals[:, :1], intervals[:, 1:]
    overlap = np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1])
    shares: Array = np.divide(overlap, end - start, out=np.zeros_like(overlap), where=(overlap > 0) & (end > start))
    return shares


def _boxes(rows: Array, columns: Array) -> Array:
    """(rows * columns, 4) The boxes of tokens in reading order; NaN where they lie outside the picture."""
    x, y = np.tile(columns, (len(rows), 1)), np.repeat(rows, len(columns), axis=0)
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
    inside = np.all((boxes[:, :2] < 1) & (boxes[:, 2:] > 0), axis=1)
    boxes[~inside] = np.nan
    return boxes


def _tile(seen: Tiles, tile: int, rows: int, columns: int) -> Array:
    """The boxes of one tile's tokens."""
    return _boxes(*seen.lines(np.array([[tile]]), rows, columns))


def _whole_picture(processor: VisionProcessor, size: Size) -> Array:
    """Qwen: the whole picture, resized; neighbouring patches are merged and come in the order of the merged ones."""
    nothing = np.zeros((size[1], size[0], 3), np.uint8)
    patches = np.asarray(read(processor, nothing)["image_grid_thw"])[0, 1:]
    rows, columns = (int(side) // processor.image_processor.merge_size for side in patches)
    return _boxes(spans((0, 1), rows, rows), spans((0, 1), columns, columns))


def _one_tile(processor: VisionProcessor, size: Size) -> Array:
    """LLaVA, FastVLM: one tile's patches in reading order, after the class token where that is kept."""
    seen = tiles_of(processor, size)
    rows, columns = seen.height // processor.patch_size, seen.width // processor.patch_size
    class_token = np.full((max(0, seen.tokens - rows * columns), 4), np.nan)
    return np.concatenate([class_token, _tile(seen, 0, rows, columns)])


def _square_tiles(processor: VisionProcessor, size: Size) -> Array:
    """Idefics3, SmolVLM, InternVL, Gemma 3, PaliGemma: tile after tile, an overview among them, each in reading order.

    What merges patches (pixel shuffle, pooling) keeps that order, so a tile's tokens are a square of equal cells.
    """
    seen = tiles_of(processor, size)
    side = math.isqrt(seen.tokens // len(seen))
    return np.concatenate([_tile(seen, tile, side, side) for tile in range(len(seen))])


def _overview_and_canvas(processor: VisionProcessor, size: Size) -> Array:
    """LLaVA-NeXT, LLaVA-OneVision: the overview, then the other tiles as one canvas, its padding cut off.

    The canvas is read line by line over all its tiles, with a token for the end of each line.
    """
    seen = tiles_of(processor, size)
    counted = getattr(processor, "num_image_tokens", None)
    side = math.isqrt(counted) if counted else seen.width // processor.patch_size
    height, width = _canvas(size, processor.image_processor.image_grid_pinpoints)
    laid = np.arange(1, len(seen)).reshape(height // seen.height, width // seen.width)
    rows, columns = _unpadded(*seen.lines(laid, side, side), size)
    if hasattr(processor, "vision_aspect_ratio"):
        rows, columns = _fewer(rows, columns, side**2 * int(processor.vision_aspect_ratio.removeprefix("anyres_max_")))
    lines = _boxes(rows, columns).reshape(len(rows), len(columns), 4)
    ended = np.pad(lines, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
    return np.concatenate([_tile(seen, 0, side, side), ended.reshape(-1, 4)])


def _canvas(size: Size, choices: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Height and width of the canvas: that which keeps most of the picture's pixels, then wastes least of its own."""
    width, height = size

    def worth(canvas: tuple[int, int]) -> tuple[int, int]:
        scale = min(canvas[1] / width, canvas[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - canvas[0] * canvas[1]

    return max(choices, key=worth)


def _unpadded(rows: Array, columns: Array, size: Size) -> tuple[Array, Array]:
    """Without the lines that show padding only, as transformers' `unpad_image` rounds it."""
    width, height = size
    if width / height > len(columns) / len(rows):
        cut = (len(rows) - int(round(height * (len(columns) / width), 7))) // 2
        return rows[cut : len(rows) - cut], columns
    cut = (len(columns) - int(round(width * (len(rows) / height), 7))) // 2
    return rows, columns[cut : len(columns) - cut]


def _fewer(rows: Array, columns: Array, most: int) -> tuple[Array, Array]:
    """Each side shrunk alike where there are clearly more tokens than `most`: LLaVA-OneVision interpolates features."""
    ratio = math.sqrt(len(rows) * len(columns) / most)
    if ratio <= 1.1:
        return rows, columns
    return _shrunk(rows, int(len(rows) // ratio)), _shrunk(columns, int(len(columns) // ratio))


def _shrunk(intervals: Array, count: int) -> Array:
    edges = np.append(intervals[:, 0], intervals[-1, 1])
    at = np.interp(np.linspace(0, len(intervals), count + 1), np.arange(len(edges)), edges)
    return np.stack([at[:-1], at[1:]], axis=1)


_Layout = Callable[[VisionProcessor, Size], Array]
_LAYOUTS: dict[str, _Layout] = {
    "LlavaProcessor": _one_tile,
    "LlavaNextProcessor": _overview_and_canvas,
    "LlavaOnevisionProcessor": _overview_and_canvas,
    "Qwen2VLProcessor": _whole_picture,
    "Qwen2_5_VLProcessor": _whole_picture,
    "Qwen3VLProcessor": _whole_picture,
    "Idefics3Processor": _square_tiles,
    "SmolVLMProcessor": _square_tiles,
    "InternVLProcessor": _square_tiles,
    "Gemma3Processor": _square_tiles,
    "PaliGemmaProcessor": _square_tiles,
}
"""By the name of the processor's class; FastVLM has LLaVA's."""


def _layout(processor: Processor) -> _Layout | None:
    return _LAYOUTS.get(type(processor).__name__)


def _family(processor: Processor) -> str:
    return type(processor).__name__.removesuffix("Processor")
