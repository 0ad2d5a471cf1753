"""Draws tokens: one uniform number a token decides, which each row takes from a generator of its own."""

from collections.abc import Sequence

import numpy as np
import torch

from parityalign.core import Decoding

_MOSTLY_ENOUGH = 1024
"""So many of the likeliest tokens mostly hold the share `top_p`; sorting the whole vocabulary may outlast a step."""


class Draws:
    """Exact sampling that depends only on each row's own seed and probabilities.

    A row's t-th number u, uniform in [0, 1), picks its t-th token by the inverse of the distribution function: the
    first token up to which, and with it, the probabilities that are left sum to more than u of all that is left
    (inverse transform sampling; Devroye, "Non-Uniform Random Variate Generation", 1986, chapter III.2). What is left
    is decided by temperature, then `top_k`, then `top_p` (Holtzman and others, arXiv:1904.09751). The numbers are made
    on the host before the first token, so batch mates, the device and resuming cannot change a draw.
    """

    def __init__(self, seeds: Sequence[int], decoding: Decoding, device: torch.device) -> None:
        """Makes the numbers.

        Args:
            seeds: One a row.
            decoding: With a temperature above 0.
            device: Where the logits will be.
        """
        tokens = decoding.max_new_tokens
        numbers = [np.random.default_rng(seed % 2**63).random(tokens, dtype=np.float32) for seed in seeds]
        self._numbers = torch.from_numpy(np.array(numbers).reshape(-1, tokens)).to(device)
        self._decoding = decoding
        self._drawn = 0

    def next(self, logits: torch.Tensor) -> torch.Tensor:
        """Each row's next token (rows,) by its logits (rows, vocabulary)."""
        likely = (logits / self._decoding.temperature).softmax(-1)
        if self._decoding.top_k or self._decoding.top_p < 1:
            likely = likely.masked_fill(likely < self._least(likely), 0)
        sums = likely.cumsum(-1, dtype=torch.float64)
        reached = self._numbers[:, self._drawn, None] * sums[:, -1:]
        self._drawn += 1
        return torch.searchsorted(sums, reached, right=True)[:, 0].clamp(max=sums.shape[-1] - 1)

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps only these rows."""
        self._numbers = self._numbers[rows]

    def _least(self, likely: torch.Tensor) -> torch.Tensor:
        """(rows, 1): the probability of the last token that is left; tokens that are as likely stay too."""
        count, share = self._decoding.top_k, self._decoding.top_p
        top = likely.topk(min(count or _MOSTLY_ENOUGH, likely.shape[-1])).values
        if share == 1:
            return top[:, -1:]
        whole = top if count else likely
        needed = share * whole.sum(-1, keepdim=True)
        least, found = _last_needed(top, needed)
        if not (count or found.all()):
            rows = (~found).nonzero()[:, 0]  # each row alone, so that its draw hangs on no other
            least[rows], _ = _last_needed(likely[rows].sort(descending=True).values, needed[rows])
        return least


def _last_needed(top: torch.Tensor, needed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of probabilities from large to small the last needed for a sum, (rows, 1), and whether there is enough."""
    short = top.cumsum(-1) < needed
    return top.gather(-1, short.sum(-1, keepdim=True).clamp(max=top.shape[-1] - 1)), ~short[:, -1]
