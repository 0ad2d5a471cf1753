"""Weights between those of the student and the trained ones: WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903).

alpha is 0 at the student's weights and 1 at the trained ones. What it brings was measured: docs/log.md,
docs/results-strong-student.md.
"""

from collections.abc import Callable
from math import isfinite
from typing import Any

import torch
from torch import nn

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Those that are looked at."""


class Interpolation:
    """A trained student whose weights can be set to any interpolation."""

    def __init__(self, trained: nn.Module, before: nn.Module | None) -> None:
        """Changes nothing.

        Args:
            trained: The trained student, which is changed.
            before: The student before, with all its weights. None: `trained` is that one with an adapter of LoRA.
        """
        layers: list[Any] = [*trained.modules()]
        self._adapted = [layer for layer in layers if before is None and hasattr(layer, "set_scale")]
        starts = {} if before is None else dict(before.named_parameters())
        ends = {name: weight for name, weight in trained.named_parameters() if name in starts}
        pairs = ((weight, starts[name].detach().cpu(), _copied(weight)) for name, weight in ends.items())
        self._weights = [each for each in pairs if not torch.equal(*each[1:])]  # the others were frozen

    @torch.no_grad()
    def set(self, alpha: float) -> None:
        """Sets the weights; an adapter's by its scale, in which what it adds is linear."""
        for weight, start, end in self._weights:
            weight.copy_(start.lerp(end, alpha))
        for layer in self._adapted:
            for adapter in layer.active_adapters:
                layer.set_scale(adapter, alpha)


def _copied(weight: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(weight, device="cpu").copy_(weight.detach())


def lowest(loss_at: Callable[[float], float]) -> tuple[float, dict[float, float]]:
    """The alpha with the lowest loss, the largest of several, and the loss at each; 0 where no loss is finite."""
    losses = {alpha: loss_at(alpha) for alpha in reversed(ALPHAS)}
    finite = {alpha: loss for alpha, loss in losses.items() if isfinite(loss)}
    return min(finite, key=lambda alpha: finite[alpha], default=0.0), losses
