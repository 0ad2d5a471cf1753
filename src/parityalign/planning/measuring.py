"""Measures this machine: its GPU, and the speed of matrix products and of copies."""

import time
from collections.abc import Callable

import torch

from parityalign.models import total_memory
from parityalign.planning.costs import USED
from parityalign.planning.published import Device, device_called

_SIDE = 1024
"""Side of the test matrices."""
_SECONDS = 0.3
"""Minimum duration of a measurement in seconds."""
_OF_MATRICES = 0.6
"""Share of the speed of large matrix products that a whole model reaches."""


def this_machine() -> Device:
    """The machine's GPU from the table, else measured values of GPU or processor."""
    if not torch.cuda.is_available():
        memory = float(total_memory())
        return _measured(f"this processor, {torch.get_num_threads()} threads", memory, torch.device("cpu"))
    found = torch.cuda.get_device_properties(0)
    known = device_called(found.name, found.total_memory)
    return known or _measured(found.name, float(found.total_memory), torch.device("cuda"))


def _measured(name: str, memory: float, place: torch.device) -> Device:
    """Peak operations and bandwidth, such that the assumed share of them is the measured speed."""
    kind = torch.bfloat16 if place.type == "cuda" else torch.float32
    left = torch.ones(_SIDE, _SIDE, dtype=kind, device=place)
    copied, there = torch.zeros(2, 32 * 2**20, dtype=torch.uint8, device=place)
    operations = 2 * _SIDE**3 * _rate(lambda: left @ left, place)
    bandwidth = 2 * copied.numel() * _rate(lambda: there.copy_(copied), place)
    return Device(name, operations / USED * _OF_MATRICES, memory, bandwidth, is_gpu=place.type == "cuda")


def _rate(work: Callable[[], object], place: torch.device) -> float:
    """How often per second some work is done."""
    work()
    count, began = 0, time.monotonic()
    while (spent := time.monotonic() - began) < _SECONDS:
        work()
        if place.type == "cuda":
            torch.cuda.synchronize()
        count += 1
    return count / spent
