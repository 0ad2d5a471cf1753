"""Draws tokens: one uniform number a token decides, which each row takes from a generator of its own."""

from collections.abc import Sequence

import numpy as np
import torch

from parityalign.core import Decoding


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
        left = (logits / self._decoding.temperature).softmax(-1)
        tokens = None
        if self._decoding.top_k or self._decoding.top_p < 1:
            left, tokens = self._narrowed(left)
        sums = left.cumsum(-1)
        # A number has 24 bits, so the product is less than the last sum: a token that is left is always found.
        reached = self._numbers[:, self._drawn, None] * sums[:, -1:]
        places = torch.searchsorted(sums, reached, right=True).clamp(max=sums.shape[-1] - 1)
        self._drawn += 1
        if tokens is None:
            return places[:, 0]
        # A GPU sums in blocks, so that the sums may rise by a rounding where nothing is left.
        last = (left > 0).sum(-1, keepdim=True).clamp(min=1) - 1
        return tokens.gather(-1, places.minimum(last))[:, 0]

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps only these rows."""
        self._numbers = self._numbers[rows]

    def _narrowed(self, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is left of the probabilities, from large to small, and the token of each."""
        left, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        if self._decoding.top_k:
            left[:, self._decoding.top_k :] = 0
        if self._decoding.top_p < 1:
            sums = left.cumsum(-1)
            left = left.masked_fill(sums - left >= self._decoding.top_p * sums[:, -1:], 0)
        return left, tokens
