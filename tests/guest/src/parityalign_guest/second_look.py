"""A term of the loss: the answer once more, under another view of the picture; sure tokens count less.

The focal loss (Lin et al. 2017, arXiv:1708.02002) of the answer's tokens: (1 - p)^power * -log p, in nats.
"""

import torch
from pydantic import Field

from parityalign.config import Settings
from parityalign.training import Passes

NEEDS = frozenset({"view"})
"""Read without importing the module, so it has to be written out."""


class SETTINGS(Settings):
    """What RUN.yaml may say: `objective: {answer: 1, second_look: {weight: 0.5, power: 1}}`."""

    power: float = Field(default=2.0, ge=0)


def losses(passes: Passes, power: float) -> torch.Tensor:
    """(N,) the loss of each labelled token."""
    again = passes.part("view")

    def focal(logits: torch.Tensor, place: slice) -> torch.Tensor:
        logprobs = torch.log_softmax(logits, dim=-1).gather(1, again.labels[place, None])[:, 0]
        return (1 - logprobs.exp()) ** power * -logprobs

    return again.each_token(focal)
