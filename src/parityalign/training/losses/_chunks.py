"""Applies the output head in chunks of tokens, so that the logits of a large vocabulary are never all in memory."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def over_chunks(
    hidden: torch.Tensor, head: nn.Module, loss_of: Callable[[torch.Tensor, slice], torch.Tensor], rows: int
) -> torch.Tensor:
    """Applies `loss_of` to each token's logits, with the logits of at most `rows` tokens in memory at a time.

    Only `hidden` is kept for the backward pass; each chunk's logits are recomputed there (gradient checkpointing,
    Chen et al. 2016, arXiv:1604.06174). Value and gradient equal those of `loss_of(head(hidden), slice(0, N))`, also
    for the head's weights and everything else that `loss_of` closes over.

    Args:
        hidden: (N, ..., H), one row for each token; (N, 2, H) gives `loss_of` the logits of two views of a token.
        head: The output layer, which may have an adapter, a bias or quantised weights.
        loss_of: (logits (n, ..., V), the chunk's slice of N) -> (n, ...), each row from its own logits only.
        rows: Tokens in a chunk.

    Returns:
        (N, ...): usually one loss for each token.
    """

    def chunk(part: torch.Tensor, place: slice) -> torch.Tensor:
        return loss_of(head(part), place)

    # Without tokens there is one empty chunk, so that the result has its shape and depends on the weights.
    places = [slice(start, start + rows) for start in range(0, max(len(hidden), 1), rows)]
    return torch.cat([checkpoint(chunk, hidden[place], place, use_reentrant=False) for place in places])
