"""Out-of-memory back-off: halves the micro-batch until it fits."""

from collections.abc import Callable
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache

from parityalign.core import WorkFailed
from parityalign.models import is_out_of_memory

T = TypeVar("T")


class OomBackoff:
    """The size of micro-batches: halved whenever memory runs out, and remembered.

    accelerate's `find_executable_batch_size` starts each call again with a size that did not fit, and ends at 0.

    Attributes:
        rows: The last size that fit; at first the requested one.
        halved: Whether memory has run out.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.halved = False

    def __call__(self, work: Callable[[int], T], items: int) -> T:
        """The result of `work(rows)` for so many items; it is called again from its start if memory runs out.

        Raises:
            WorkFailed: A single row does not fit.
        """
        while True:
            rows = min(self.rows, items)
            try:
                return work(rows)
            except (RuntimeError, MemoryError) as problem:
                if not is_out_of_memory(problem):
                    raise
                if rows == 1:
                    raise _does_not_fit(problem) from problem
            # Outside the `except`: until the exception is gone, its traceback keeps the tensors that filled the memory.
            self.rows, self.halved = rows // 2, True
            clear_device_cache(garbage_collection=True)


def _does_not_fit(problem: Exception) -> WorkFailed:
    said = next(iter(str(problem).splitlines()), "out of memory")
    return WorkFailed(
        f"a single pair does not fit into memory in training: {said}\n"
        "To use less: level.gradient_checkpointing: true, a smaller loading.student.max_pixels, "
        "level.method: lora or qlora. The training so far is kept if only gradient_checkpointing changes."
    )
