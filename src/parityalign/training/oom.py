"""Out-of-memory back-off: halves the micro-batch until it fits, and doubles it again when larger ones may fit."""

import sys
from collections.abc import Callable
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache

from parityalign.core import WorkFailed
from parityalign.models import is_out_of_memory

T = TypeVar("T")
_LONGEST_WAIT = 64
"""Calls between two tries of a larger size, at most."""


class OomBackoff:
    """The size of micro-batches: halved whenever memory runs out, doubled again after calls that fitted.

    One large picture cuts its own step; where memory is short for all, larger ones are tried ever more seldom.
    accelerate's `find_executable_batch_size` starts each call again with a size that did not fit, and ends at 0.

    Attributes:
        rows: What the next call begins with; at first the requested size.
        smallest: The smallest size that memory that ran out has led to; None: it never did.
    """

    def __init__(self, rows: int) -> None:
        self._wished = rows
        self.rows = rows
        self.smallest: int | None = None
        self._wait, self._waited = 1, 0
        self._tries_larger = False

    def __call__(self, work: Callable[[int], T], items: int) -> T:
        """The result of `work(rows)` for so many items; it is called again from its start if memory runs out.

        Raises:
            WorkFailed: A single row does not fit.
        """
        ran_out = False
        while True:
            rows = min(self.rows, items)
            try:
                result = work(rows)
            except (RuntimeError, MemoryError) as problem:
                if not is_out_of_memory(problem):
                    raise
                if rows == 1:
                    raise _does_not_fit(problem) from problem
            else:
                self._fitted(ran_out)
                return result
            # Outside the `except`: until the exception is gone, its traceback keeps the tensors that filled the memory.
            self.rows, ran_out = rows // 2, True
            self.smallest = min(self.rows, self.smallest or self.rows)
            clear_device_cache(garbage_collection=True)

    def agree(self, smallest: Callable[[int], int]) -> None:
        """Goes on with the smallest size of all processes that train together, as `smallest` finds it."""
        self.rows = smallest(self.rows)
        found = smallest(self.smallest or sys.maxsize)
        self.smallest = found if found < sys.maxsize else None

    def _fitted(self, ran_out: bool) -> None:
        """Decides what the next call begins with."""
        if ran_out:
            self._wait = min(2 * self._wait, _LONGEST_WAIT) if self._tries_larger else self._wait
            self._waited, self._tries_larger = 0, False
        elif self.rows == self._wished:
            self._wait = 1
        else:
            self._waited += 1
            if self._waited >= self._wait:
                self.rows, self._waited, self._tries_larger = min(2 * self.rows, self._wished), 0, True


def _does_not_fit(problem: Exception) -> WorkFailed:
    said = next(iter(str(problem).splitlines()), "out of memory")
    return WorkFailed(
        f"a single pair does not fit into memory in training: {said}\n"
        "To use less: level.gradient_checkpointing: true, a smaller loading.student.max_pixels, "
        "level.method: lora or qlora. The training so far is kept if only gradient_checkpointing changes."
    )
