"""What a vision-language model attends to while it answers: read off, differentiably, at a few positions only.

The language model's attention function is wrapped for the time of a forward pass, by way of transformers' table of
attention functions. The pass itself keeps its own function, fast or not; beside it, in the chosen layers, the weights
of the asked positions alone are computed once more from the same queries and keys: (positions x tokens) numbers where
a whole map would have (tokens x tokens).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from parityalign.core import UserError
from parityalign.models.labels import IGNORE_INDEX
from parityalign.models.versions import unknown_transformers

_RECORDED = "parityalign_recorded"
"""Name of the wrapped attention in transformers' tables, while one is there."""
_CHOICE = "_attn_implementation_internal"
"""Where a configuration keeps the name of its attention function; the setter beside it would change those below too."""


class AttentionRecorder:
    """Gathers attention while a model runs inside `recording_attention`; made by it.

    Attributes:
        layers: The layers that are read, counted from 0.
    """

    def __init__(self, layers: frozenset[int]) -> None:
        self.layers = layers
        self._positions: torch.Tensor | None = None
        self._here: torch.Tensor | None = None
        self._passes: dict[int, tuple[object, torch.Tensor | None]] = {}
        self._seen: dict[int, torch.Tensor] = {}

    def select(self, positions: torch.Tensor | None) -> None:
        """Sets what the next forward pass is recorded at.

        Args:
            positions: (rows, positions) places of the tokens that attend; any place, such as -1, where a row has fewer.
                None: the next pass is not recorded.
        """
        self._positions = positions
        self._seen = {}

    def begin_layer(self, token: object | None) -> None:
        """Told before a layer works for which pass it does, by an object that all layers of a pass are given.

        Gradient checkpointing runs the layers of each pass once more in the backward pass; those of a pass that was
        recorded are recorded again, whatever pass was the last.

        Args:
            token: The object; None: the family has none, so it is taken for the last pass.
        """
        self._here = self._positions
        if token is not None:
            _, self._here = self._passes.setdefault(id(token), (token, self._positions))

    def clear(self) -> None:
        """Lets go of all passes so far: nothing of them will be run once more."""
        self._passes = {}

    @property
    def weights(self) -> torch.Tensor:
        """(rows, positions, tokens): mean over the read layers and their heads, in float32 at least."""
        return torch.stack([self._seen[layer] for layer in sorted(self._seen)]).mean(dim=0)

    def mean_over_answers(self, lengths: torch.Tensor) -> torch.Tensor:
        """What answers look at: the mean over their own tokens, the end token left out, which has nothing to look for.

        Args:
            lengths: (rows,) how many positions each row has, the end token's among them.

        Returns:
            (rows, tokens)
        """
        weights, own = self.weights, (lengths - 1).clamp_min(1)[:, None]
        counted = torch.arange(weights.shape[1], device=weights.device) < own
        return (weights * counted[..., None]).sum(dim=1) / own

    def record(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float
    ) -> None:
        """Computes the weights of one layer at the asked positions.

        Args:
            layer: Its number.
            query: (rows, heads, tokens, width), positions already encoded.
            key: (rows, key heads, tokens, width).
            mask: (rows or 1, 1, tokens, tokens), additive or boolean; None: causal.
            scaling: Of the products.
        """
        if self._here is None:
            return
        rows, heads, tokens, _ = query.shape
        places = self._here.clamp_min(0)
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
        # Run again in a backward pass they are computed, so that as much is saved as the first time, but not kept: with
        # them would be kept what checkpointing is there to let go of.
        if self._here is self._positions:
            self._seen.setdefault(layer, weights)


@contextmanager
def recording_attention(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[AttentionRecorder]:
    """Records what the language model of `model` attends to, in the forward passes inside the `with`.

    With gradient checkpointing the backward passes have to be inside as well.

    Args:
        model: A vision-language model of transformers.
        layers: Which layers, such as `readable_layers(model)`.

    Raises:
        UserError: The installed transformers chooses its attention function in a way that is not known.
    """
    config: Any = _decoder(model).config
    if not hasattr(config, _CHOICE):
        raise unknown_transformers("chooses its attention function")
    recorder, usual = AttentionRecorder(frozenset(layers)), config._attn_implementation
    modules = _text_layers(model)
    # The family's plain function has no name in the table; the fused one computes the same from the same mask.
    attend = ALL_ATTENTION_FUNCTIONS["sdpa" if usual == "eager" else usual]

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
    AttentionMaskInterface.register(_RECORDED, ALL_MASK_ATTENTION_FUNCTIONS[usual])
    setattr(config, _CHOICE, _RECORDED)
    try:
        yield recorder
    finally:
        setattr(config, _CHOICE, usual)
        for hook in hooks:
            hook.remove()


def readable_layers(model: Any) -> list[int]:  # noqa: ANN401 - whichever class the family has
    """The layers whose attention is read: the middle half, where answers look at the image most.

    The first layers mix neighbours and the last ones write the next token (Chen et al. 2024, arXiv:2403.06764; Zhang
    et al. 2025, arXiv:2502.17422).

    Raises:
        UserError: The family's attention cannot be read.
    """
    count = len(_text_layers(model))
    if not count or not model._supports_attention_backend:
        raise UserError(
            f"the attention of {type(model).__name__} cannot be read: its layers do not take their attention function "
            "from transformers' table. Leave out of level.objective what needs it, such as the term 'attention'."
        )
    return list(range(count // 4, count - count // 4))


def before_answers(labels: torch.Tensor) -> torch.Tensor:
    """Where the tokens stand whose output is an answer's token.

    Args:
        labels: (rows, tokens), `IGNORE_INDEX` outside the answers.

    Returns:
        (rows, longest answer) places; -1 where an answer is shorter.
    """
    found = [row.nonzero().flatten() for row in labels[:, 1:] != IGNORE_INDEX]
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=-1)


def _text_layers(model: PreTrainedModel) -> dict[torch.nn.Module, int]:
    """The attention modules of the language model, with the number of each."""
    numbered = ((module, getattr(module, "layer_idx", None)) for module in _decoder(model).modules())
    return {module: number for module, number in numbered if isinstance(number, int) and hasattr(module, "scaling")}


def _decoder(model: Any) -> Any:  # noqa: ANN401 - whichever class the family has
    """The language model below the output head, also under an adapter's wrapper."""
    return unwrapped(model).get_decoder()


def unwrapped(model: Any) -> Any:  # noqa: ANN401 - whichever class the family has
    """The model below an adapter's wrapper, where there is one."""
    inner = getattr(model, "get_base_model", None)
    return inner() if inner else model
