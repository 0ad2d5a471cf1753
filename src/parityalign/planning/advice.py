"""What makes a machine slower than it looks, and what to do about it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SLOW_CONV3D = "2.9."
"""Versions of torch whose 3-D convolution in bfloat16 is slow: github.com/pytorch/pytorch/issues/166643."""


def advice(gpus: Sequence[Mapping[str, Any]], packages: Mapping[str, str | None]) -> Iterator[str]:
    """Sentences for the user.

    Args:
        gpus: By GPU its name, and whether it multiplies bfloat16 in hardware.
        packages: Versions of the installed packages.
    """
    old = [gpu["name"] for gpu in gpus if not gpu["bfloat16"]]
    if old:
        yield (
            f"{old[0]} does not multiply bfloat16 in hardware, so models run and are trained in float32, which takes "
            "twice the memory. For answering, loading.teacher.dtype: float16 and loading.student.dtype: float16 are "
            "faster, if the model's numbers allow it (an overflow is told). To train, take a card from 2020 or later."
        )
    torch = packages.get("torch") or ""
    if gpus and torch.startswith(_SLOW_CONV3D):
        yield (
            f"torch {torch} is ten times slower than others in the 3-D convolution with which Qwen-VL and GLM-V read "
            "pictures. Install another version: pip install --upgrade torch"
        )
