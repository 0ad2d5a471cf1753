"""Consistency: the divergence of the student's answers under two views of the same picture.

Formula, source and checks: docs/objectives.md.
"""

import torch

from parityalign.training.losses._divergences import view_divergence
from parityalign.training.losses._passes import Passes

NEEDS = frozenset({"view"})


def losses(passes: Passes) -> torch.Tensor:
    """(N,) the Jensen-Shannon divergence of the next token under the two views, in nats."""
    other = passes.part("view").each_token(lambda logits, _: logits)
    return passes.each_token(lambda logits, place: view_divergence(logits, other[place]))
