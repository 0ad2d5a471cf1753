"""Hidden states of the labelled tokens before the output head, so that the head can be applied in chunks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from parityalign.models import IGNORE_INDEX, unwrapped


class AnswerInputs(NamedTuple):
    """What a model is asked of a batch: the logits of few columns, since prompts are much longer than answers."""

    inputs: dict[str, Any]
    """The model's inputs, with the request for logits of the last `columns + 1` tokens of each row."""
    columns: int
    """Columns from the first answer's first token on. The logits of column i - 1 predict the token in column i."""
    labelled: torch.Tensor
    """(rows, columns), where there is a loss."""


class _PassedOn(nn.Module):
    """Replaces the output head: returns its input and stores it."""

    seen: torch.Tensor | None = None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        self.seen = states
        return states


def asked_for(batch: Mapping[str, torch.Tensor]) -> AnswerInputs:
    """The model's inputs of a batch, and which of its outputs matter.

    Args:
        batch: The model's inputs and `labels` (rows, tokens), `IGNORE_INDEX` where there is no loss.
    """
    inputs: dict[str, Any] = {key: value for key, value in batch.items() if key != "labels"}
    labelled = batch["labels"] != IGNORE_INDEX
    columns = batch["labels"].shape[1] - int(labelled.any(dim=0).int().argmax())
    inputs |= {"use_cache": False, "logits_to_keep": columns + 1}
    return AnswerInputs(inputs, columns, labelled[:, -columns:])


def states_before_head(model: nn.Module, head: nn.Linear, asked: AnswerInputs) -> torch.Tensor | None:
    """(labelled tokens, H): what the output head makes the logits of the labelled tokens of, in the head's precision.

    None if the family changes the logits after the head (a soft cap, a scale), since then the head alone does not
    give the loss.
    """
    stand_in, owner = _PassedOn(), unwrapped(model)
    owner.set_output_embeddings(stand_in)
    try:
        out = model(**asked.inputs).logits
    finally:
        owner.set_output_embeddings(head)
    if stand_in.seen is None or not torch.equal(out, stand_in.seen.to(out.device, out.dtype)):
        return None
    seen = stand_in.seen[:, -asked.columns - 1 : -1]
    return seen[asked.labelled.to(seen.device)].to(head.weight.dtype)
