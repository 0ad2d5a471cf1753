"""Batch sizes of inference: as many rows as their tokens and patches allow, fewer once memory has run out."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from parityalign.core import Request
from parityalign.models.backends._reading import image_bytes
from parityalign.models.encoding import Encoded

CPU_TOKENS = 16384
"""Tokens and patches in a batch without a GPU; more bring no more speed."""
MOST_TOKENS = 131_072
"""The most on a GPU, whatever its memory."""
_SHARE_OF_FREE = 0.5
"""Share of the GPU's free memory that is used; the rest is a reserve for what the estimate misses."""
_HIDDEN_STATES = 24
"""Activations of a layer's width that a token has in memory while it goes through that layer."""
_WINDOW_BYTES = 2**30
"""Bytes of images in memory while their rows are sorted by length."""
_PATCH = 16
"""Side of a patch in pixels, for towers without patches."""

_learned: dict[str, int] = {}
"""By model, after memory ran out: half the number of tokens that were too many."""


class Row(NamedTuple):
    """One reply to generate."""

    place: int
    """Index among the requests."""
    request: Request
    encoded: Encoded


class Budget:
    """How large one model's batches may be.

    Attributes:
        tokens: Most tokens (prompt, padding and reply) and patches in a batch.
    """

    def __init__(self, name: str, model: PreTrainedModel) -> None:
        self._name = name
        self._patch = _patch_side(model.config)
        self.tokens = min(_tokens_in_memory(model), _learned.get(name, MOST_TOKENS))

    def first(self, rows: Sequence[Row], reply_tokens: int) -> int:
        """How many of the first rows, sorted by length, fit into a batch; at least one."""
        images: set[str] = set()
        seen = 0
        for count, row in enumerate(rows, 1):
            if row.request.image not in images:
                images.add(row.request.image)
                seen += patches(row.encoded, self._patch)
            if count > 1 and count * (len(row.encoded.tokens) + reply_tokens) + seen > self.tokens:
                return count - 1
        return len(rows)

    def halve(self, rows: Sequence[Row], reply_tokens: int) -> None:
        """Remembers, for the rest of the process, that these rows were too many."""
        longest = max(len(row.encoded.tokens) for row in rows)
        images = {row.request.image: patches(row.encoded, self._patch) for row in rows}
        self.tokens = min(self.tokens, len(rows) * (longest + reply_tokens) + sum(images.values())) // 2
        _learned[self._name] = self.tokens


def windows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Chunks of rows whose images fit into memory together, each sorted by length to reduce padding."""
    window: list[Row] = []
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


def _length(row: Row) -> int:
    return len(row.encoded.tokens)


def _patch_side(config: PreTrainedConfig) -> int:
    side = getattr(getattr(config, "vision_config", None), "patch_size", None)
    return int(max(side) if isinstance(side, list | tuple) else side or _PATCH)


def _tokens_in_memory(model: PreTrainedModel) -> int:
    if model.device.type != "cuda":
        return CPU_TOKENS
    text = model.config.get_text_config(decoder=True)
    heads = text.num_attention_heads
    kept = 2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads) * _head_size(text)
    a_token = (kept + _HIDDEN_STATES * text.hidden_size) * model.dtype.itemsize
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, int(free * _SHARE_OF_FREE / a_token))


def _head_size(text: PreTrainedConfig) -> int:
    size: int | None = getattr(text, "head_dim", None)
    return size or int(text.hidden_size // text.num_attention_heads)
