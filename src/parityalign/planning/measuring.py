"""Measures this machine: its GPU, the speed of matrix products, and of models on a few real requests."""

import time
from collections.abc import Callable, Sequence

import psutil
import torch

from parityalign.core import Decoding, Model, Request
from parityalign.planning.costs import USED
from parityalign.planning.published import Device, device_called
from parityalign.planning.sizes import Prompts, Throughput

_SIDE = 1024
"""Side of the test matrices."""
_SECONDS = 0.3
"""Minimum duration of a measurement in seconds."""
_OF_MATRICES = 0.6
"""Share of the speed of large matrix products that a whole model reaches."""


def this_machine() -> Device:
    """The machine's GPU from the table, else measured values of GPU or processor."""
    if not torch.cuda.is_available():
        memory = float(psutil.virtual_memory().total)
        return _measured(f"this processor, {torch.get_num_threads()} threads", memory, torch.device("cpu"))
    found = torch.cuda.get_device_properties(0)
    known = device_called(found.name, found.total_memory)
    return known or _measured(found.name, float(found.total_memory), torch.device("cuda"))


def measured_throughput(
    model: Model, images: Sequence[str], prompts: Prompts, tokens: tuple[int, int, int], draws: int
) -> Throughput:
    """Asks a model for real.

    Args:
        model: Loaded already.
        images: Paths of the sample's pictures.
        prompts: The prompts.
        tokens: Most tokens of a pair, an answer and a rationale; 0: not asked for.
        draws: Pairs per picture: equal prompts may be processed once.
    """

    def timed(prompt: str, most: int, times: int = 1) -> float:
        requests = [Request(image, prompt, seed) for image in images for seed in range(times)]
        began = time.monotonic()
        model.generate(requests, Decoding(most, temperature=float(times > 1)))
        return (time.monotonic() - began) / len(requests)

    timed(prompts.answer, 1)  # the first call makes caches and picks kernels
    return Throughput(
        annotate=timed(prompts.annotate, tokens[0], draws),
        answer=timed(prompts.answer, tokens[1]),
        rationale=timed(prompts.rationale, tokens[2]) if tokens[2] else 0.0,
        read=timed(prompts.answer, 1),
        requests=len(images),
    )


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
