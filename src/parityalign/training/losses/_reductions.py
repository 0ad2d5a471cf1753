"""Reduces token losses to pair losses."""

import torch


def pair_means(losses: torch.Tensor, pair_of: torch.Tensor, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss of each pair, so that long answers count no more than short ones.

    Args:
        losses: (N,), one for each token (or group of tokens, or map), of all pairs in any order.
        pair_of: (N,) the pair of each; negative: masked. A masked loss may be anything, even NaN.
        pairs: Number of pairs.

    Returns:
        Means (pairs,) and their counts (pairs,); an empty mean is 0 without a gradient.
    """
    kept = pair_of >= 0
    losses, pair_of = losses[kept], pair_of[kept]
    counts = torch.bincount(pair_of, minlength=pairs)
    sums = losses.new_zeros(pairs).index_add(0, pair_of, losses)
    return sums / counts.clamp(min=1), counts
