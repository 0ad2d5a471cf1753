"""Rows about one picture as a single row: what they begin with once, then the rest of each as a segment of its own.

A segment sees what stands before all of them and itself, no other segment, and its tokens have the positions that they
have in a row of their own. So the model computes for each token what it would compute there, and the picture once.
"""

import inspect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from parityalign.models.attention import unwrapped
from parityalign.models.cutting import on_device, sent
from parityalign.models.encoding import Encoded
from parityalign.models.internals import DynamicLayer, DynamicSlidingWindowLayer, cached_layers
from parityalign.models.labels import LabelledRow
from parityalign.models.parts import image_token
from parityalign.models.stacking import EXPLAINED_LABELS, stack

_MASKED = ("sdpa", "eager")
"""Attention functions that take any mask."""
_NO_TYPES = frozenset({"input_ids", "labels", EXPLAINED_LABELS})
"""Values of tokens that say nothing of which tokens see each other."""


class SharedRow(NamedTuple):
    """Rows about one picture."""

    segments: Sequence[LabelledRow]
    """The rows, each as it is alone."""
    prefix: int
    """How many tokens they begin with alike, the picture's among them."""

    @property
    def tokens(self) -> int:
        """Tokens of the single row."""
        return self.prefix + sum(len(segment.encoded.tokens) - self.prefix for segment in self.segments)


class RowSharing:
    """How rows about one picture become one row for one model; made by `row_sharing`."""

    def __init__(self, model: Any, image_token: int) -> None:  # noqa: ANN401 - whichever class the family has
        """Reads how the model takes masks and positions.

        Args:
            model: The model.
            image_token: The id of the tokens that stand for pictures.
        """
        self._image_token = image_token
        self._rope: Callable[..., tuple[torch.Tensor, Any]] | None = _rope_index(model)
        self._rope_takes = frozenset(inspect.signature(self._rope).parameters) if self._rope else frozenset()
        self._window = min(
            (getattr(layer, "sliding_window", math.inf) for layer in cached_layers(unwrapped(model).config)),
            default=math.inf,
        )
        self._adds_masks = _text_config(model)._attn_implementation == "eager"
        self._dtype: torch.dtype = unwrapped(model).dtype

    def prefix(self, rows: Sequence[LabelledRow]) -> int:
        """How many tokens the rows begin with alike; each keeps at least one before its answer.

        0: they cannot share a row, since not all of the picture stands there, or a token does not see all that stand
        before it, or types tell the model which of them see each other.
        """
        before_answers = min(len(row.encoded.tokens) - len(row.ends) for row in rows)
        shared = min(len(os.path.commonprefix([row.encoded.tokens for row in rows])), before_answers - 1)
        later = any(self._image_token in row.encoded.tokens[shared:] for row in rows)
        types = rows[0].encoded.per_token.keys() - _NO_TYPES - self._rope_takes
        too_long = max(len(row.encoded.tokens) for row in rows) > self._window
        return 0 if later or types or too_long else shared

    def stack(self, rows: Sequence[SharedRow], *, pad_token: int, device: torch.device) -> dict[str, torch.Tensor]:
        """A batch, padded at the right: per-token values (rows, longest), pictures, mask and positions.

        The mask is (rows, 1, longest, longest); positions are (rows, longest), or (3, rows, longest) where they
        count a picture in two dimensions.

        Args:
            rows: At least one.
            pad_token: The id of padding.
            device: Where the batch shall be.
        """
        batch = stack([_joined(row) for row in rows], pad_token=pad_token, side="right", device=device)
        segments = sent(pad_sequence([_segments(row) for row in rows], batch_first=True), device)
        positions = sent(pad_sequence([self._positions(row).T for row in rows], batch_first=True), device)
        axes = positions.permute(2, 0, 1)
        return batch | {
            "attention_mask": self._mask(segments),
            "position_ids": axes if self._rope else axes[0],
        }

    def _mask(self, segments: torch.Tensor) -> torch.Tensor:
        """Whether the token of a line sees that of a column; padding comes last, and no token before it sees it."""
        longest = segments.shape[1]
        before = torch.ones(longest, longest, dtype=torch.bool, device=segments.device).tril()
        own = (segments[:, None] == 0) | (segments[:, None] == segments[..., None])
        sees = (before & own)[:, None]
        if not self._adds_masks:
            return sees
        lowest = torch.finfo(self._dtype).min
        return torch.zeros_like(sees, dtype=self._dtype).masked_fill(~sees, lowest)

    def _positions(self, row: SharedRow) -> torch.Tensor:
        """(axes, tokens): of the prefix as the model counts them, of each segment as if it came next."""
        begins = self._of_prefix(row.segments[0].encoded, row.prefix)
        following = [torch.arange(len(each.encoded.tokens) - row.prefix) for each in row.segments]
        after = begins.max() + 1 + torch.cat(following)
        return torch.cat([begins, after.expand(len(begins), -1)], dim=1)

    def _of_prefix(self, encoded: Encoded, prefix: int) -> torch.Tensor:
        if self._rope is None:
            return torch.arange(prefix)[None]
        tokens = {key: torch.tensor([values[:prefix]]) for key, values in encoded.per_token.items()}
        tokens["attention_mask"] = torch.ones(1, prefix, dtype=torch.long)
        pictures = {key: on_device(values) for key, values in encoded.image.items() if key in self._rope_takes}
        taken = {key: values for key, values in tokens.items() if key in self._rope_takes}
        return self._rope(**taken, **pictures)[0][:, 0]


def row_sharing(model: Any) -> RowSharing | None:  # noqa: ANN401 - whichever class the family has
    """How rows about one picture become one row for a model, with an adapter or without.

    None: its tokens take no positions or no masks that are given, or its layers keep something else than tokens (a
    recurrent state).
    """
    whole = unwrapped(model)
    token = image_token(whole.config)
    keeps_tokens = {*map(type, cached_layers(whole.config))} <= {DynamicLayer, DynamicSlidingWindowLayer}
    takes_positions = "position_ids" in inspect.signature(whole.forward).parameters
    takes_masks = _text_config(model)._attn_implementation in _MASKED
    able = keeps_tokens and takes_positions and takes_masks
    return RowSharing(model, token) if able and token is not None else None


def _text_config(model: Any) -> Any:  # noqa: ANN401 - whichever class the family has
    return unwrapped(model).config.get_text_config(decoder=True)


def _rope_index(model: Any) -> Callable[..., tuple[torch.Tensor, Any]] | None:  # noqa: ANN401 - as above
    """The model's own function that counts positions in more than one dimension."""
    whole = unwrapped(model)
    return getattr(whole, "get_rope_index", None) or getattr(whole.base_model, "get_rope_index", None)


def _joined(row: SharedRow) -> Encoded:
    """The single row's tokens, and the picture once."""
    first = row.segments[0].encoded
    return replace(
        first,
        per_token={
            key: values[: row.prefix] + [each for segment in row.segments for each in _rest(segment, key, row.prefix)]
            for key, values in first.per_token.items()
        },
    )


def _rest(segment: LabelledRow, key: str, prefix: int) -> list[int]:
    return segment.encoded.per_token[key][prefix:]


def _segments(row: SharedRow) -> torch.Tensor:
    """(tokens,): 0 before the segments, then the number of each token's segment, from 1."""
    lengths = [row.prefix, *(len(segment.encoded.tokens) - row.prefix for segment in row.segments)]
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
