"""As many rows at once as memory takes."""

from collections.abc import Callable
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache

from parityalign.core import WorkFailed
from parityalign.models import is_out_of_memory

T = TypeVar("T")


class OomBackoff:
    """How many rows go through a model together: halved whenever memory runs out, and remembered.

    accelerate's `find_executable_batch_size` begins each call with the size that did not fit before, and ends at 0.

    Attributes:
        rows: As many as went through last; at first as many as are asked for.
        halved: Whether memory has run out.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.halved = False

    def __call__(self, work: Callable[[int], T], items: int) -> T:
        """What `work(rows)` makes of so many items; it is called again from its beginning where memory runs out.

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
            # Here, since until the exception is gone its traceback holds the tensors that filled the memory.
            self.rows, self.halved = rows // 2, True
            clear_device_cache(garbage_collection=True)


def _does_not_fit(problem: Exception) -> WorkFailed:
    said = next(iter(str(problem).splitlines()), "out of memory")
    return WorkFailed(
        f"a single pair does not fit into memory in training: {said}\n"
        "What takes less: level.gradient_checkpointing: true, a smaller loading.student.max_pixels, "
        "level.method: lora or qlora. What was trained so far is kept where only gradient_checkpointing changes."
    )
