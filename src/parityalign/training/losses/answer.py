"""The paper's objective (Parity Leveler, PL): negative log-likelihood of the answer's tokens."""

import torch
from torch.nn import functional

from parityalign.training.losses._passes import Passes


def losses(passes: Passes) -> torch.Tensor:
    """(N,) -log p(token | image, text before it) of each labelled token, in nats."""

    def loss_of(logits: torch.Tensor, place: slice) -> torch.Tensor:
        return functional.cross_entropy(logits.float(), passes.labels[place], reduction="none")

    return passes.each_token(loss_of)
