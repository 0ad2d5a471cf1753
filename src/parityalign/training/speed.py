"""How fast training goes, and how much of the machine it uses, for the progress line."""

import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec

import psutil
import torch

WINDOW = 32
"""Steps over which a rate is taken."""


class Speed:
    """Examples and tokens a second over the last steps, with memory and how busy the GPU is.

    How busy it is NVIDIA's library says, if its Python package (nvidia-ml-py) is installed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._examples = self._tokens = 0
        self._gpu_tells = torch.cuda.is_available() and find_spec("pynvml") is not None
        self._steps: deque[tuple[float, int, int, int | None]] = deque(maxlen=WINDOW + 1)
        self._steps.append((clock(), 0, 0, None))

    def count(self, examples: int, tokens: int) -> None:
        """Counts what goes through the student."""
        self._examples += examples
        self._tokens += tokens

    def step(self) -> str:
        """Ends a step; returns the figures in words."""
        self._steps.append((self._clock(), self._examples, self._tokens, self._busy()))
        (before, examples, tokens, _), (now, *_) = self._steps[0], self._steps[-1]
        spent = max(now - before, 1e-9)
        each = (self._examples - examples) / spent, (self._tokens - tokens) / spent
        rates = f"{each[0]:,.1f} examples and {each[1]:,.0f} tokens a second"
        busy = [share for *_, share in self._steps if share is not None]
        shares = [f"GPU {sum(busy) / len(busy):.0f} % busy"] if busy else []
        return ", ".join([rates, f"{_memory() / 1e9:,.1f} GB", *shares])

    def _busy(self) -> int | None:
        """Percent of the last moments in which the GPU worked; None if nothing can tell."""
        if not self._gpu_tells:
            return None
        try:
            return int(torch.cuda.utilization())
        except Exception:  # noqa: BLE001 - a part of a GPU, or a container, has no such figure; training goes on
            self._gpu_tells = False
            return None


def _memory() -> int:
    """Bytes: the most that the GPU has held, or what the process holds."""
    on_gpu = torch.cuda.is_available()
    return int(torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss)
