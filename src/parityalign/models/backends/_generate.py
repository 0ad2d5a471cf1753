"""The internals of transformers' `generate` that the decoding loop uses, across versions.

They are not a public API of transformers, so they are confined to this module, the only one to adapt to a new version.
"""

import inspect
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin

from parityalign.models.versions import unknown_transformers

_CACHE_NAMES = ("cache", "past_key_values")
"""Names of the cache in the state of `generate`: since transformers 5.24, and before."""
_TYPES = ("token_type_ids", "mm_token_type_ids")
_PER_TOKEN = ("attention_mask", "position_ids", *_TYPES)
"""Other per-row state of `generate`."""
_TAKEN = {
    "_prefill": {"input_ids", "generation_config", "model_kwargs"},
    "_update_model_kwargs_for_generation": {"outputs", "model_kwargs"},
    "prepare_inputs_for_generation": {"input_ids", "next_sequence_length"},
}
"""The methods that are called here, with their arguments."""


def refuse_unknown_generate() -> None:
    """Refuses a transformers with another structure of `generate`, before any work.

    Raises:
        UserError: It has; the message names the supported versions.
    """
    for name, arguments in _TAKEN.items():
        method = getattr(GenerationMixin, name, None)
        if method is None or not arguments <= inspect.signature(method).parameters.keys():
            raise unknown_transformers(f"generates text (GenerationMixin.{name})")


class GenerationPasses:
    """The forward passes of one generation, and what is carried from each to the next."""

    def __init__(self, model: Any, state: dict[str, Any]) -> None:  # noqa: ANN401 - its own methods are on no public type
        self._model = model
        self._state = state

    def first(self, input_ids: torch.Tensor, generation_config: GenerationConfig) -> torch.Tensor:
        """Processes the prompts.

        Args:
            input_ids: (prompts, tokens), padded at the left.
            generation_config: As prepared by `generate`.

        Returns:
            (prompts, vocabulary): logits of the next token after each, in float32.
        """
        return self._after(self._model._prefill(input_ids, generation_config, self._state))

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        """Processes one more token of each row.

        Args:
            tokens: (rows,)

        Returns:
            (rows, vocabulary): logits of the next token after each, in float32.
        """
        inputs = self._model.prepare_inputs_for_generation(tokens[:, None], next_sequence_length=1, **self._state)
        return self._after(self._model(**inputs, return_dict=True))

    def more(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Processes several more tokens of each row, at the positions that follow.

        Args:
            input_ids: (rows, tokens), padded at the left.
            attention_mask: (rows, tokens): 0 for padding.

        Returns:
            (rows, vocabulary): logits of the next token after each, in float32.
        """
        state, count = self._state, input_ids.shape[1]
        before = state.get("attention_mask")
        if before is not None or not attention_mask.all():
            if before is None:
                before = attention_mask.new_ones(len(input_ids), self._cache().get_seq_length())
            before = before[:, : self._cache().get_seq_length()]
            state["attention_mask"] = torch.cat([before, attention_mask], dim=1)
        positions = state["position_ids"]
        following = (attention_mask.cumsum(1) - 1).clamp(min=0)
        state["position_ids"] = torch.cat([positions[..., :-1], positions[..., -1:] + following], dim=-1)
        for key in _TYPES:
            if (types := state.get(key)) is not None:
                state[key] = torch.cat([types[:, :-1], types.new_zeros(input_ids.shape)], dim=1)
        inputs = self._model.prepare_inputs_for_generation(input_ids, next_sequence_length=count, **state)
        return self._after(self._model(**inputs, return_dict=True))

    def choose(self, rows: torch.Tensor) -> None:
        """Keeps these rows of the batch, which may repeat; changes the cache in place.

        Raises:
            UserError: This transformers stores its cache in another way.
        """
        for layer in self._cache().layers:  # each where its part of the model is
            keys = getattr(layer, "keys", None)
            layer.batch_select_indices(rows if keys is None else rows.to(keys.device))
        for key in _PER_TOKEN:
            if (value := self._state.get(key)) is not None:
                # The axis of time, height and width comes before the rows.
                self._state[key] = value.index_select(value.ndim - 2, rows.to(value.device))

    def _cache(self) -> Any:  # noqa: ANN401 - one of the family's choice
        for name in _CACHE_NAMES:
            if self._state.get(name) is not None:
                return self._state[name]
        raise unknown_transformers("carries its cache through `generate`")

    def _after(self, outputs: Any) -> torch.Tensor:  # noqa: ANN401 - the family's own
        self._state = self._model._update_model_kwargs_for_generation(outputs, self._state)
        logits: torch.Tensor = outputs.logits[:, -1].float()
        return logits
