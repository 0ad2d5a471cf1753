"""Teacher-forced log-probabilities and attention of a local model, from one forward pass over a given reply."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from parityalign.core import TOP, Observation, UserError
from parityalign.models.attention import before_answers, readable_layers, recording_attention
from parityalign.models.encoding import Array, Processor
from parityalign.models.labels import IGNORE_INDEX, LabelledRow
from parityalign.models.token_boxes import TokenBoxes, can_place, pooled


class Observing:
    """Scores replies with one model; made once, called batch by batch."""

    def __init__(self, model: PreTrainedModel, processor: Processor) -> None:
        """Checks whether the model's attention can be read and mapped to the picture."""
        self._model: Any = model
        tokenizer: Any = processor.tokenizer
        # An output head may have more rows than the vocabulary.
        self._vocabulary = len(tokenizer)
        self._token_boxes = TokenBoxes(processor) if can_place(processor) else None
        self._layers = _layers(model) if self._token_boxes else []

    def observe(self, rows: Sequence[LabelledRow], inputs: Mapping[str, torch.Tensor]) -> list[Observation]:
        """The log-probabilities and attention map of each row.

        Args:
            rows: Prompts with their answers.
            inputs: The same rows as model inputs, padded at the right, with `labels`.
        """
        model_inputs = {key: value for key, value in inputs.items() if key != "labels"}
        positions = before_answers(inputs["labels"])
        counts = [len(row.ends) for row in rows]
        first = int(positions[positions >= 0].min())
        width = inputs["labels"].shape[1]
        recording = recording_attention(self._model, self._layers) if self._layers else nullcontext()
        with torch.inference_mode(), recording as recorder:
            if recorder is not None:
                recorder.select(positions)
            logits = self._model(**model_inputs, use_cache=False, logits_to_keep=width - first).logits
        logits = logits[:, -(width - first) :]
        maps = [_NOTHING] * len(rows)
        if recorder is not None:
            seen = recorder.mean_over_answers(torch.tensor(counts, device=positions.device)).cpu().numpy()
            maps = [self._map(row, weights) for row, weights in zip(rows, seen, strict=True)]
        return [
            _observation(row, logits[i, positions[i, :count] - first, : self._vocabulary], places)
            for i, (row, count, places) in enumerate(zip(rows, counts, maps, strict=True))
        ]

    def _map(self, row: LabelledRow, weights: Array) -> Array:
        if self._token_boxes is None:
            return _NOTHING
        placed = self._token_boxes.locate(row.encoded.size, row.encoded.tokens)
        cells = pooled(weights[placed.positions], placed.boxes)
        return cells.ravel().astype(np.float16) if cells.any() else _NOTHING


_NOTHING: Array = np.zeros(0, dtype=np.float16)


def _observation(row: LabelledRow, logits: torch.Tensor, places: Array) -> Observation:
    """One row's observation from the logits (tokens, vocabulary) of its answer."""
    ids = [label for label in row.encoded.per_token["labels"] if label != IGNORE_INDEX]
    logs = logits.float().log_softmax(dim=-1)
    top = logs.topk(min(TOP, logs.shape[-1]), dim=-1)
    rest = logs.scatter(-1, top.indices, -torch.inf).logsumexp(dim=-1)
    said = logs.gather(-1, torch.tensor(ids, device=logs.device)[:, None])[:, 0]
    return Observation(
        ids=np.array(ids, dtype=np.int32),
        ends=np.array(row.ends, dtype=np.int32),
        logprobs=_half(said),
        top_ids=top.indices.cpu().numpy().astype(np.int32),
        top_logprobs=_half(top.values),
        tail=_half(rest),
        places=places,
    )


def _half(values: torch.Tensor) -> Array:
    halved: Array = values.cpu().numpy().astype(np.float16)
    return halved


def _layers(model: PreTrainedModel) -> list[int]:
    try:
        return readable_layers(model)
    except UserError:  # then the pair has no map, which is counted
        return []
