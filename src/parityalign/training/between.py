"""Weights between those of the student and the trained ones: WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903).

Part of the way a strong student forgets less, and a rate that was too high does less harm
(docs/results-strong-student.md).
"""

from collections.abc import Callable, Mapping
from math import inf, isfinite
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

SHARES = (0.25, 0.5, 0.75)
"""The shares of the way that are looked at besides the whole."""
_SECOND_FACTOR = "lora_B"
"""In the names of the factor of an adapter with which the whole adapter grows."""


class Between:
    """A trained student that can be moved to any share of the way from the student before to it."""

    def __init__(self, trained: nn.Module, before: nn.Module | None) -> None:
        """Moves nothing.

        Args:
            trained: The trained student, whose weights will be moved.
            before: The student before, whole. None: `trained` is that one with an adapter.
        """
        starts = dict(before.named_parameters()) if before else None
        ways = (
            (weight, _start(name, weight, starts), weight.detach().cpu().clone())
            for name, weight in trained.named_parameters()
            if starts or _SECOND_FACTOR in name
        )
        self._ways = [way for way in ways if not torch.equal(*way[1:])]  # what was frozen stays where it is

    @torch.no_grad()
    def move(self, share: float) -> None:
        """Moves it: 0 is the student before, 1 the trained one."""
        for weight, start, end in self._ways:
            weight.copy_(start.lerp(end, share))


def lowest(loss_at: Callable[[float], float], whole: float) -> tuple[float, float]:
    """The share of the way with the lowest loss, and the loss.

    Args:
        loss_at: The loss at a share.
        whole: The loss at the end of the way.
    """
    losses = {1.0: whole, **{share: loss_at(share) for share in SHARES}}
    finite = {share: loss if isfinite(loss) else inf for share, loss in losses.items()}
    best = min(finite, key=lambda share: finite[share])
    return best, losses[best]


def shorten_adapter(weights: Path, share: float) -> None:
    """Moves the adapter in a file of peft's."""
    factors = load_file(weights)
    moved = {name: share * factor if _SECOND_FACTOR in name else factor for name, factor in factors.items()}
    save_file(moved, weights, {"format": "pt"})


def _start(name: str, weight: torch.Tensor, starts: Mapping[str, nn.Parameter] | None) -> torch.Tensor:
    """Where a weight was before training."""
    return starts[name].detach().cpu() if starts else torch.zeros_like(weight, device="cpu")
