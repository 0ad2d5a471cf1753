"""Batch sizes of inference: as many rows as their tokens and patches allow, fewer once memory has run out."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from parityalign.core import Request
from parityalign.models.encoding import Encoded
from parityalign.models.limits import CPU_TOKENS, MOST_TOKENS, cached_numbers, patch_side, tokens_in_memory
from parityalign.models.pictures import image_bytes

_WINDOW_BYTES = 2**28
"""Bytes of images in memory while their rows are sorted by length; more would have the model wait for them."""
_PATCH = 16
"""Side of a patch in pixels, for towers without patches."""

_learned: dict[str, int] = {}
"""By model, after memory ran out: half the number of tokens that were too many."""


class BatchRow(NamedTuple):
    """One reply to be written."""

    place: int
    """Index among the requests."""
    request: Request
    encoded: Encoded


class TokenBudget:
    """How much of one model's work fits into memory.

    Attributes:
        tokens: Most tokens (prompt, padding and reply) and patches in a batch.
    """

    def __init__(self, name: str, model: PreTrainedModel) -> None:
        self._name = name
        self._patch = patch_side(model.config) or _PATCH
        self.tokens = min(_tokens_in_memory(model), _learned.get(name, MOST_TOKENS))

    def first(self, rows: Sequence[BatchRow], reply_tokens: int) -> int:
        """How many of the first rows, sorted by length, go at once; one at least."""
        images: set[str] = set()
        seen = 0
        for count, row in enumerate(rows, 1):
            if row.request.image not in images:
                images.add(row.request.image)
                seen += patches(row.encoded, self._patch)
            if count > 1 and count * (len(row.encoded.tokens) + reply_tokens) + seen > self.tokens:
                return count - 1
        return len(rows)

    def halve(self, rows: Sequence[BatchRow], reply_tokens: int) -> None:
        """Notes, for the rest of the process, that these rows were too many."""
        longest = max(len(row.encoded.tokens) for row in rows)
        images = {row.request.image: patches(row.encoded, self._patch) for row in rows}
        self.tokens = min(self.tokens, len(rows) * (longest + reply_tokens) + sum(images.values())) // 2
        _learned[self._name] = self.tokens


def windows(rows: Iterable[BatchRow]) -> Iterator[list[BatchRow]]:
    """The rows in parts whose images may lie in memory together, each sorted by length so that little is padded."""
    window: list[BatchRow] = []
    images: set[str] = set()
    held = 0
    for row in rows:
        window.append(row)
        if row.request.image not in images:
            images.add(row.request.image)
            held += image_bytes(row.encoded)
        if held > _WINDOW_BYTES:
            yield sorted(window, key=_length)
            window, images, held = [], set(), 0
    if window:
        yield sorted(window, key=_length)


def patches(row: Encoded, side: int) -> int:
    """Patches of the row's image in the vision tower, which may be more than the tokens made of them."""
    pixels = row.image.get("pixel_values")
    if pixels is None:
        return 0
    flat = pixels.ndim < 4  # some processors cut patches themselves: (patches, numbers)
    return int(pixels.shape[-2] if flat else pixels.size // (pixels.shape[-3] * side * side))


def _length(row: BatchRow) -> int:
    return len(row.encoded.tokens)


def _tokens_in_memory(model: PreTrainedModel) -> int:
    if model.device.type != "cuda":
        return CPU_TOKENS
    text = model.config.get_text_config(decoder=True)
    free, _ = torch.cuda.mem_get_info(model.device)
    return tokens_in_memory(free, cached_numbers(text), text.hidden_size, model.dtype.itemsize)
