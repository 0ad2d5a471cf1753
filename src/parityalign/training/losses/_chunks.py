"""The output head in chunks of tokens: the logits of a long vocabulary are never all in memory at once."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def over_chunks(
    hidden: torch.Tensor, head: nn.Module, loss_of: Callable[[torch.Tensor, slice], torch.Tensor], rows: int
) -> torch.Tensor:
    """What `loss_of` makes of each token's logits, with the logits of at most `rows` tokens alive at a time.

    Only `hidden` is kept for the backward pass; each chunk's logits are computed again there (gradient checkpointing,
    Chen et al. 2016, arXiv:1604.06174). Value and gradient are those of `loss_of(head(hidden), slice(0, N))`, for the
    head's weights and for whatever else `loss_of` closes over, too.

    Args:
        hidden: (N, ..., H), one row for each token; (N, 2, H) gives `loss_of` the logits of two views of a token.
        head: The output layer, called as it is: with an adapter, a bias or quantised weights.
        loss_of: (logits (n, ..., V), the chunk's place in N) -> (n, ...), each row from its own logits only.
        rows: Tokens in a chunk.

    Returns:
        (N, ...): usually one loss for each token.
    """

    def chunk(part: torch.Tensor, place: slice) -> torch.Tensor:
        return loss_of(head(part), place)

    # Without any token there is one empty chunk, so that the result has its shape and hangs on the weights.
    places = [slice(start, start + rows) for start in range(0, max(len(hidden), 1), rows)]
    return torch.cat([checkpoint(chunk, hidden[place], place, use_reentrant=False) for place in places])
