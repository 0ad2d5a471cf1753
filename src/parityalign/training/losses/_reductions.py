"""From losses of tokens to losses of pairs."""

import torch


def pair_means(losses: torch.Tensor, pair_of: torch.Tensor, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss of each pair, so that a long answer counts no more than a short one.

    Args:
        losses: (N,), one for each token (or group of tokens, or map), of all pairs in any order.
        pair_of: (N,) the pair that each belongs to; negative: masked. A masked loss may be anything, even NaN.
        pairs: How many pairs there are.

    Returns:
        Means (pairs,) and the counts (pairs,) that they are of; the mean of nothing is 0 without a gradient.
    """
    kept = pair_of >= 0
    losses, pair_of = losses[kept], pair_of[kept]
    counts = torch.bincount(pair_of, minlength=pairs)
    sums = losses.new_zeros(pairs).index_add(0, pair_of, losses)
    return sums / counts.clamp(min=1), counts
