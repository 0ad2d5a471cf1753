"""The paper's objective (Parity Leveler, PL): negative log-likelihood of the answer's tokens, given image and question.

A file in `objectives/` defines `loss(model, batch)`: a scalar to be minimised, and to be averaged over batches with
the number of labelled tokens as weight.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional


def loss(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean over all labelled tokens of the batch of -log p(token | image, text before it), in nats.

    Args:
        model: A vision-language model of transformers.
        batch: The model's inputs and `labels` (rows, tokens), -100 wherever no loss is taken.
    """
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    labelled = batch["labels"] != -100
    # Prompts are much longer than answers: only the columns from the first answer on go through the output head.
    columns = batch["labels"].shape[1] - int(labelled.any(dim=0).int().argmax())
    labelled, labels = labelled[:, -columns:], batch["labels"][:, -columns:]
    logits = model(**inputs, use_cache=False, logits_to_keep=columns + 1).logits[:, -columns - 1 : -1]
    return functional.cross_entropy(logits[labelled].float(), labels[labelled])
