"""Rationale distillation: the negative log-likelihood of the teacher's rationale, under its own prompt.

The answer prompt stays as short as before; the effect is through the shared weights only. Formula, source and checks:
docs/objectives.md.
"""

import torch
from torch.nn import functional

from parityalign.training.losses._passes import Passes
from parityalign.training.losses._reductions import pair_means

NEEDS = frozenset({"rationale"})


def losses(passes: Passes) -> torch.Tensor:
    """(N,) mean of -log p(token) over the row's rationale, in nats, at each answer token; 0 without a rationale."""
    if "explained" not in passes.batch:
        return torch.zeros(len(passes.labels), device=passes.labels.device)
    explained = passes.part("explained")

    def loss_of(logits: torch.Tensor, place: slice) -> torch.Tensor:
        return functional.cross_entropy(logits.float(), explained.labels[place], reduction="none")

    row_of = passes.batch["explained"]["explains"][explained.rows]
    means, _ = pair_means(explained.each_token(loss_of), row_of, len(passes.lengths))
    return means[passes.rows]
