"""Attention of a vision-language model at a few token positions, recorded differentiably.

During a forward pass the language model's attention function is wrapped, through transformers' table of attention
functions. The pass itself keeps its own (fast) function; in the chosen layers the weights of the requested positions
are computed once more from the same queries and keys: (positions x tokens) numbers instead of (tokens x tokens) for a
whole map.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from parityalign.core import UserError
from parityalign.models.internals import ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS
from parityalign.models.labels import IGNORE_INDEX
from parityalign.models.versions import known, unknown_transformers

_RECORDED = "parityalign_recorded"
"""Name of the wrapped attention function in transformers' tables."""
_CHOICE = "_attn_implementation_internal"
"""Attribute with the name of a configuration's attention function; its public setter would also change sub-configs."""


class AttentionRecorder:
    """Collects attention while a model runs inside `recording_attention`, which creates it.

    Attributes:
        layers: Indices of the recorded layers, from 0.
    """

    def __init__(self, layers: frozenset[int]) -> None:
        self.layers = layers
        self._positions: torch.Tensor | None = None
        self._here: torch.Tensor | None = None
        self._passes: dict[int, tuple[object, torch.Tensor | None]] = {}
        self._seen: dict[int, torch.Tensor] = {}

    def select(self, positions: torch.Tensor | None) -> None:
        """Sets the positions at which the next forward pass is recorded.

        Args:
            positions: (rows, positions) indices of the query tokens, padded with -1.
                None: the next pass is not recorded.
        """
        self._positions = positions
        self._seen = {}

    def begin_layer(self, token: object | None) -> None:
        """Called before each layer, with an object that all layers of one pass share, to tell passes apart.

        Gradient checkpointing runs the layers of each pass again in the backward pass; the layers of a recorded pass
        are then recorded again, even if another pass came later.

        Args:
            token: The object; None: the family has none, so the last pass is assumed.
        """
        self._here = self._positions
        if token is not None:
            _, self._here = self._passes.setdefault(id(token), (token, self._positions))

    def clear(self) -> None:
        """Forgets all passes so far: none of their layers will run again."""
        self._passes = {}

    @property
    def weights(self) -> torch.Tensor:
        """(rows, positions, tokens): mean over the recorded layers and their heads, in float32 or wider."""
        seen = [self._seen[layer] for layer in sorted(self._seen)]
        return torch.stack([weights.to(seen[0].device) for weights in seen]).mean(dim=0)

    def mean_over_answers(self, lengths: torch.Tensor) -> torch.Tensor:
        """The attention of answers: the mean over their own tokens, without the end token.

        Args:
            lengths: (answers,) number of positions of each answer, including the end token's; in the order of the
                selected positions, of which a row may hold those of several answers.

        Returns:
            (answers, tokens)
        """
        if self._positions is None:
            raise ValueError("no positions were selected")
        here = lengths.device  # weights of a model on several devices may be on another
        weights = self.weights.to(here)[(self._positions >= 0).to(here)]
        ends, own = lengths.cumsum(0)[:, None], (lengths - 1).clamp_min(1)[:, None]
        place = torch.arange(len(weights), device=here) - (ends - lengths[:, None])
        counted = (place >= 0) & (place < own)
        return (counted / own).to(weights.dtype) @ weights

    def record(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float
    ) -> None:
        """Computes the attention weights of one layer at the requested positions.

        Args:
            layer: Its index.
            query: (rows, heads, tokens, width), positions already encoded.
            key: (rows, key heads, tokens, width).
            mask: (rows or 1, 1, tokens, tokens), additive or boolean; None: causal.
            scaling: Factor on the query-key products.
        """
        if self._here is None:
            return
        rows, heads, tokens, _ = query.shape
        places = self._here.clamp_min(0).to(query.device)
        asked = query.gather(2, places[:, None, :, None].expand(rows, heads, -1, query.shape[-1]))
        keys = key.repeat_interleave(heads // key.shape[1], dim=1)
        scores = (asked @ keys.transpose(2, 3)).to(torch.promote_types(query.dtype, torch.float32)) * scaling
        if mask is None:
            hidden = torch.arange(tokens, device=query.device) > places[:, None, :, None]
        else:
            at = places[:, None, :, None].expand(rows, 1, -1, mask.shape[-1])
            allowed = mask.expand(rows, 1, -1, -1).gather(2, at)[..., :tokens]
            hidden = ~allowed if allowed.dtype == torch.bool else allowed < torch.finfo(allowed.dtype).min / 2
        weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1).mean(dim=1)
        # In a checkpointed re-run they are computed, so that as many tensors are saved as in the first run, but not
        # stored: that would keep alive the memory that checkpointing is meant to free.
        if self._here is self._positions:
            self._seen.setdefault(layer, weights)


@contextmanager
def recording_attention(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[AttentionRecorder]:
    """Records the attention of `model`'s language model in the forward passes inside the `with`.

    With gradient checkpointing the backward passes have to be inside too.

    Args:
        model: A vision-language model of transformers.
        layers: Which layers, such as `readable_layers(model)`.

    Raises:
        UserError: The installed transformers selects its attention function in an unknown way.
    """
    config: Any = _decoder(model).config
    if not hasattr(config, _CHOICE):
        raise unknown_transformers("chooses its attention function")
    recorder, usual = AttentionRecorder(frozenset(layers)), config._attn_implementation
    modules = _text_layers(model)
    # The eager function is not in the table; sdpa computes the same from the same mask.
    attend = known("attends", ALL_ATTENTION_FUNCTIONS, "sdpa" if usual == "eager" else usual)
    mask = known("masks attention", ALL_MASK_ATTENTION_FUNCTIONS, usual)

    def attend_and_record(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **rest: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if modules.get(module) in recorder.layers:
            recorder.record(
                modules[module], query, key, attention_mask, query.shape[-1] ** -0.5 if scaling is None else scaling
            )
        result: tuple[torch.Tensor, torch.Tensor | None] = attend(
            module, query, key, value, attention_mask, scaling=scaling, **rest
        )
        return result

    def before_layer(module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        recorder.begin_layer(kwargs.get("position_embeddings"))

    hooks = [
        module.register_forward_pre_hook(before_layer, with_kwargs=True)
        for module, layer in modules.items()
        if layer in recorder.layers
    ]
    AttentionInterface.register(_RECORDED, attend_and_record)
    AttentionMaskInterface.register(_RECORDED, mask)
    setattr(config, _CHOICE, _RECORDED)
    try:
        yield recorder
    finally:
        setattr(config, _CHOICE, usual)
        for hook in hooks:
            hook.remove()


def readable_layers(model: Any) -> list[int]:  # noqa: ANN401 - whichever class the family has
    """The layers whose attention is recorded: the middle half, where answers attend to the image most.

    The first layers mix neighbours and the last ones write the next token (Chen et al. 2024, arXiv:2403.06764; Zhang
    et al. 2025, arXiv:2502.17422).

    Raises:
        UserError: The family's attention cannot be read.
    """
    count = len(_text_layers(model))
    if not count or not model._supports_attention_backend:
        raise UserError(
            f"the attention of {type(model).__name__} cannot be read: its layers do not take their attention function "
            "from transformers' table. Remove the terms that need it, such as 'attention', from level.objective."
        )
    return list(range(count // 4, count - count // 4))


def before_answers(labels: torch.Tensor) -> torch.Tensor:
    """Positions of the tokens that predict the answers' tokens.

    Args:
        labels: (rows, tokens), `IGNORE_INDEX` outside the answers.

    Returns:
        (rows, longest answer) positions; -1 where an answer is shorter.
    """
    found = [row.nonzero().flatten() for row in labels[:, 1:] != IGNORE_INDEX]
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=-1)


def _text_layers(model: PreTrainedModel) -> dict[torch.nn.Module, int]:
    """The attention modules of the language model, with the index of each."""
    numbered = ((module, getattr(module, "layer_idx", None)) for module in _decoder(model).modules())
    return {module: number for module, number in numbered if isinstance(number, int) and hasattr(module, "scaling")}


def _decoder(model: Any) -> Any:  # noqa: ANN401 - whichever class the family has
    """The language model without its output head, also under an adapter's wrapper."""
    return unwrapped(model).get_decoder()


def unwrapped(model: Any) -> Any:  # noqa: ANN401 - whichever class the family has
    """The model without an adapter's wrapper."""
    inner = getattr(model, "get_base_model", None)
    return inner() if inner else model
