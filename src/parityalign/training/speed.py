"""How fast training goes, and how much of the machine it uses, for the progress line."""

import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec

import psutil
import torch

from parityalign.core import EXAMPLES_A_SECOND, GPU_BUSY

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
        examples, tokens = self._rates()
        busy = self._mean_busy()
        shares = [] if busy is None else [f"GPU {busy:.0f} % busy"]
        rates = f"{examples:,.1f} examples and {tokens:,.0f} tokens a second"
        return ", ".join([rates, f"{_memory() / 1e9:,.1f} GB", *shares])

    def figures(self) -> dict[str, float]:
        """The figures of the last steps as numbers; none before the first step has ended."""
        if len(self._steps) < 2:
            return {}
        busy = self._mean_busy()
        return {EXAMPLES_A_SECOND: self._rates()[0], **({} if busy is None else {GPU_BUSY: busy})}

    def _rates(self) -> tuple[float, float]:
        """Examples and tokens a second."""
        (before, examples, tokens, _), (now, all_examples, all_tokens, _) = self._steps[0], self._steps[-1]
        spent = max(now - before, 1e-9)
        return (all_examples - examples) / spent, (all_tokens - tokens) / spent

    def _mean_busy(self) -> float | None:
        known = [share for *_, share in self._steps if share is not None]
        return sum(known) / len(known) if known else None

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
