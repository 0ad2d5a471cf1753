"""How far log-probabilities may lie apart by rounding alone."""

from collections.abc import Mapping
from types import MappingProxyType

import torch

_BY_PRECISION: Mapping[torch.dtype, float] = MappingProxyType(
    {torch.float32: 0.005, torch.float16: 0.02, torch.bfloat16: 0.1}
)


def mean_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean distance of two rows of log-probabilities, each relative to 1 + its magnitude."""
    return float(((one - other).abs() / (1 + one.abs())).mean())


def rounding_of(precision: torch.dtype) -> float:
    """The largest `mean_difference` that rounding to a precision may cause."""
    return _BY_PRECISION.get(precision, max(_BY_PRECISION.values()))
