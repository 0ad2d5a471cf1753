"""Checks that the saved student gives the same log-probabilities as the trained one, before level finishes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from parityalign.core import WorkFailed
from parityalign.models import IGNORE_INDEX, mean_difference, rounding_of
from parityalign.training.collator import AnswerCollator, Example

PAIRS_COMPARED = 4
"""Pairs that both are compared on."""


def answer_logprobs(model: nn.Module, batches: AnswerCollator, examples: Sequence[Example]) -> torch.Tensor:
    """Log-probability of each token of the first few examples' answers, end tokens included, in nats."""
    model.eval()
    return torch.cat([_said(model, batches.plain([example])) for example in examples[:PAIRS_COMPARED]])


def refuse_difference(trained: torch.Tensor, saved: torch.Tensor, stored: torch.dtype, where: str) -> None:
    """Refuses a saved student whose log-probabilities differ from the trained one's.

    Raises:
        WorkFailed: They differ by more than the rounding to the stored precision explains.
    """
    found, most = mean_difference(trained, saved), rounding_of(stored)
    if not found <= most:  # so that nan is refused, too
        name = str(stored).removeprefix("torch.")
        raise WorkFailed(
            f"the student saved in {where} differs from the trained one: on {len(trained)} tokens of "
            f"held-out answers the log-probabilities differ by {found:.3g}, where rounding to {name} explains at most "
            f"{most:g} ({_row(trained)} became {_row(saved)}).\n"
            "It is not used, and the checkpoints are kept. Try level.method: full, or another version of peft or "
            "transformers, and run the same command."
        )


def _said(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    asked: Any = model
    labels = batch["labels"][0].cpu()
    # Some towers take pictures only in the precision of their weights.
    inputs = {
        key: value.to(asked.device, asked.dtype if value.is_floating_point() else None)
        for key, value in batch.items()
        if key != "labels"
    }
    answer = labels != IGNORE_INDEX
    kept = int(answer.sum())  # a row's labels are its end
    with torch.no_grad():
        logits: torch.Tensor = asked(**inputs, use_cache=False, logits_to_keep=kept + 1).logits[0, -kept - 1 : -1]
    return logits.float().cpu().log_softmax(dim=-1).gather(1, labels[answer][:, None])[:, 0]


def _row(values: torch.Tensor) -> str:
    return " ".join(f"{value:.2f}" for value in values[:3].tolist())
