"""A step's rows and its first micro-batch, made while the GPU is at work on the step before."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from accelerate.utils.memory import clear_device_cache

from parityalign.core import WorkFailed
from parityalign.models import is_out_of_memory
from parityalign.training.bundles import MicroBatch, Row
from parityalign.training.collator import Begun

Batch = dict[str, Any]


class _Known(NamedTuple):
    begun: Begun
    rows: list[Row]
    first: MicroBatch
    batch: Batch


class Ahead:
    """Makes rows and micro-batches when they are asked for, or before.

    A GPU is asked for its work long before it has done it. Who makes what comes next before waiting for a result makes
    it meanwhile.
    """

    def __init__(
        self,
        rows: Callable[[Begun], list[Row]],
        cut: Callable[[Sequence[Row]], list[MicroBatch]],
        batch: Callable[[MicroBatch], Batch],
    ) -> None:
        """Makes nothing yet.

        Args:
            rows: Makes a step's rows.
            cut: Their micro-batches, as they would be now.
            batch: Makes what a micro-batch is on the device.
        """
        self._rows, self._cut, self._batch = rows, cut, batch
        self._known: _Known | None = None

    def make(self, begun: Begun) -> None:
        """Makes a step's rows and its first micro-batch; where that fails, the step itself will meet the reason."""
        self.forget()
        try:
            self._known = self._made(begun)
        except WorkFailed:
            return
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
        else:
            return
        # Outside the `except`: until the exception is gone, its traceback keeps what filled the memory.
        clear_device_cache(garbage_collection=True)

    def _made(self, begun: Begun) -> _Known | None:
        """None where a process has no part of the step."""
        rows = self._rows(begun)
        parts = self._cut(rows)
        return _Known(begun, rows, parts[0], self._batch(parts[0])) if parts else None

    def forget(self) -> None:
        """Gives up what was made."""
        self._known = None

    def rows(self, begun: Begun) -> list[Row]:
        """A step's rows."""
        return self._known.rows if self._known and self._known.begun is begun else self._rows(begun)

    def batch(self, part: MicroBatch) -> Batch:
        """What a micro-batch is on the device; what was made before is given away, so that nothing holds it."""
        known, self._known = self._known, None
        if known and _same(known.first, part):
            return known.batch
        del known  # its memory is needed for the next
        return self._batch(part)


def _same(one: MicroBatch, other: MicroBatch) -> bool:
    """Whether the rows of two micro-batches are the same objects, together in the same way."""

    def told(part: MicroBatch) -> list[tuple[int, list[int]]]:
        return [(bundle.prefix, [*map(id, bundle.rows)]) for bundle in part.bundles]

    return told(one) == told(other)
