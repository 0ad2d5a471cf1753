"""Batches: rows of tokens padded to one length, and their pictures, on a model's device."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import numpy as np
import torch

from parityalign.models.cutting import Array, Later, each_on_device, on_device, sent
from parityalign.models.eight_bits import PIXELS, numbers_of
from parityalign.models.encoding import Encoded

POOLED = "image_token_pooling"
"""Molmo2's: of each of a picture's tokens the numbers of the patches that make it."""
EXPLAINED_LABELS = "explained_labels"
"""Labels of rationales, where they share rows with answers."""
_PADDING = {"labels": -100, EXPLAINED_LABELS: -100}
"""Padding values of per-token inputs other than the tokens; 0 by default. -100: no loss, as in torch."""
_OF_PACKED = "target_sizes"
"""What comes with pixels of the shape (1, 3, side, patches * side), MiniCPM-V's: all patches of a batch in a line."""
_WHOLE = {np.dtype(np.int32): torch.int32}
"""Kinds of whole numbers that stay what they are."""
_CPU = torch.device("cpu")


def stack(
    rows: Sequence[Encoded],
    *,
    pad_token: int,
    side: Literal["left", "right"],
    device: torch.device = _CPU,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """A batch: per-token values (rows, longest row), padded at one side, and the pictures' tensors.

    Args:
        rows: At least one.
        pad_token: The id of padding.
        side: Where it is put.
        device: Where the batch shall be.
        dtype: Of pixels.
    """
    padding = {"input_ids": pad_token, **_PADDING}
    batch = {key: _padded([row.per_token[key] for row in rows], padding.get(key, 0), side) for key in rows[0].per_token}
    batch["attention_mask"] = _padded([np.ones(len(row.tokens), np.int64) for row in rows], 0, side)
    there = {key: sent(values, device) for key, values in batch.items()}
    return there | stack_images(rows, device=device, dtype=dtype)


def _padded(rows: Sequence[Sequence[int] | Array], fill: int, side: Literal["left", "right"]) -> torch.Tensor:
    """(rows, longest row); through NumPy, which takes a tenth of the time of torch with lists."""
    whole = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for place, row in zip(whole, rows, strict=True):
        place[len(place) - len(row) if side == "left" else 0 :][: len(row)] = row
    return torch.from_numpy(whole)


def stack_images(
    rows: Sequence[Encoded], *, device: torch.device = _CPU, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """The arrays of several pictures concatenated along the first axis, zero-padded where their shapes differ.

    Pixels that a processor packs into one line of patches are concatenated along their last axis. Pictures that are not
    cut yet are cut on the device.
    """

    def joined(key: str) -> torch.Tensor:
        arrays, levels = [row.image[key] for row in rows], rows[0].levels if key == PIXELS else None
        if key == POOLED:
            counted = _counted_on(arrays, [math.prod(row.image[PIXELS].shape[:-1]) for row in rows])
            return _joined(counted, levels, device, dtype)
        if key == PIXELS and _OF_PACKED in rows[0].image:
            turned = [on_device(array).numpy().swapaxes(0, -1) for array in arrays]
            return _joined(turned, levels, device, dtype).transpose(0, -1).contiguous()
        return _joined(arrays, levels, device, dtype)

    return {key: joined(key) for key in rows[0].image}


def _counted_on(arrays: Sequence[Array | Later], patches: Sequence[int]) -> list[Array]:
    """Numbers of patches as they are where the patches of all pictures follow each other; below 0 is none."""
    numbers = [on_device(array).numpy() for array in arrays]
    before = accumulate(patches, initial=0)
    return [np.where(each < 0, each, each + count) for each, count in zip(numbers, before, strict=False)]


def _joined(
    arrays: Sequence[Array | Later], levels: torch.Tensor | None, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    table = None if levels is None else sent(levels.to(dtype), device)
    whole_numbers = table is None and not np.issubdtype(arrays[0].dtype, np.floating)
    kind = _WHOLE.get(arrays[0].dtype, torch.int64) if whole_numbers else dtype
    largest = [max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
    whole = torch.zeros((sum(array.shape[0] for array in arrays), *largest), dtype=kind, device=device)
    ends = [*accumulate(array.shape[0] for array in arrays)]
    places = [
        whole[(slice(end - array.shape[0], end), *map(slice, array.shape[1:]))]
        for array, end in zip(arrays, ends, strict=True)
    ]
    # Rows about one picture share its arrays.
    several = {id(array): (array, place) for array, place in zip(arrays, places, strict=True)}
    made = each_on_device([array for array, _ in several.values()], device)
    for (_, place), part in zip(several.values(), made, strict=True):
        place.copy_(part if table is None else numbers_of(part, table))
    for array, place in zip(arrays, places, strict=True):
        if place is not several[id(array)][1]:
            place.copy_(several[id(array)][1])
    return whole
