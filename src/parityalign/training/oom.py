"""Micro-batches as large as memory takes: learnt from a step, halved when memory runs out, larger again later."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache
from transformers import TrainerState

from parityalign.core import WorkFailed
from parityalign.models import is_out_of_memory, with_who_holds_it
from parityalign.training.bundles import MicroBatch

T = TypeVar("T")
MICRO_BATCH_TOKENS = {True: 65_536, False: 16_384}
"""Tokens and patches of a micro-batch, on a GPU and on a CPU."""
_MOST_TOKENS = 262_144
"""The same on a GPU whose memory takes them, as a step has shown: more of them bring no more speed."""
_STEP_OF_TOKENS = 32_768
"""What is found to fit is rounded down to a multiple of this, so that the moment's free bytes hardly matter."""
_SHARE_OF_FREE = 0.9
"""Of the GPU's free memory; the rest is for steps with longer rows."""
_LONGEST_WAIT = 64
"""Calls between two tries of larger micro-batches, at most."""
_SMALLEST_GAIN = 1 / 8
"""Half of the way to what did not fit is tried if it is more than what fits by over this share."""
_MEMORY = "memory"
"""Name in a checkpoint of what is known of the memory."""


class RanOut(Exception):
    """Memory ran out in one of several processes that have to make the same passes, and so cannot begin a step again.

    Attributes:
        tokens: Most tokens and patches of micro-batches that it should begin anew with.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


class OomBackoff:
    """The budget of micro-batches: halved when memory runs out, doubled again after calls that fitted.

    What is cut by tokens parts from a large picture's row alone. Where memory is short for all, so that twice as many
    do not fit, half of the way there is tried until what fits is known; after that more is tried ever more seldom.
    accelerate's `find_executable_batch_size` starts each call again with a size that did not fit, and ends at 0.

    Attributes:
        tokens: Most tokens and patches of the next micro-batches; at first those that are wished for.
        smallest: The smallest budget that memory that ran out has led to; None: it never did.
        begins_anew: Whether a call whose memory ran out is begun again here; else it ends with `RanOut`.
    """

    def __init__(self, tokens: int) -> None:
        self._wished = tokens
        self.begins_anew = True
        self.tokens = tokens
        self.smallest: int | None = None
        self._wait, self._waited = 1, 0
        self._fitted_before = 0  # what fitted before the last try of more
        self._too_many = 0
        self._at_work: MicroBatch | None = None
        self._largest = 0

    def __call__(self, cut: Callable[[int], Sequence[MicroBatch]], work: Callable[[Iterator[MicroBatch]], T]) -> T:
        """The result of `work` on micro-batches within the budget; it begins anew if memory runs out.

        Args:
            cut: The micro-batches of a budget.
            work: Takes them one by one.

        Raises:
            WorkFailed: A single example does not fit.
            RanOut: Memory ran out, and this process may not begin anew.
        """
        ran_out = False
        while True:
            try:
                result = work(self._noted(cut(self.tokens)))
            except (RuntimeError, MemoryError) as problem:
                if self._at_work is None or not is_out_of_memory(problem):
                    raise
                if len(self._at_work.rows) == 1:
                    raise _does_not_fit(problem) from problem
            else:
                self._fitted(ran_out)
                return result
            # Outside the `except`: until the exception is gone, its traceback keeps the tensors that filled the memory.
            self.tokens, ran_out = self._smaller(self._at_work.size, ran_out), True
            self.smallest = min(self.tokens, self.smallest or self.tokens)
            if not self.begins_anew:
                raise RanOut(self.tokens)
            clear_device_cache(garbage_collection=True)

    def grow(self, tokens: int) -> None:
        """Wishes for larger micro-batches, now that they are known to fit; not where memory has run out before."""
        if self.smallest is None and tokens > self._wished:
            self._wished = self.tokens = tokens

    @property
    def largest(self) -> int:
        """Tokens and patches of the largest micro-batch of the last call."""
        return self._largest

    def agree(self, smallest: Callable[[int], int]) -> None:
        """Goes on with the fewest tokens of all processes that train together, as `smallest` finds it."""
        self.tokens = smallest(self.tokens)
        found = smallest(self.smallest or sys.maxsize)
        self.smallest = found if found < sys.maxsize else None

    @property
    def state(self) -> dict[str, int | None]:
        """What a process that goes on with the training has to know."""
        return {
            "tokens": self.tokens,
            "wished": self._wished,
            "smallest": self.smallest,
            "wait": self._wait,
            "waited": self._waited,
            "fitted_before": self._fitted_before,
            "too_many": self._too_many,
        }

    def restore(self, state: Mapping[str, int | None]) -> None:
        """Goes on with a budget; where fewer tokens are known to fit now, with these.

        The smallest budget that memory led to, before or now, stays known.
        """
        if self.smallest is None:
            self._wished = max(self._wished, state.get("wished") or 0)
        self.tokens = min(state["tokens"] or self._wished, self._wished)
        self.smallest = min(filter(None, (self.smallest, state["smallest"])), default=None)
        self._wait, self._waited = state["wait"] or 1, state["waited"] or 0
        self._fitted_before, self._too_many = state.get("fitted_before") or 0, state.get("too_many") or 0

    def _noted(self, parts: Sequence[MicroBatch]) -> Iterator[MicroBatch]:
        """The micro-batches, of which the one at work is known."""
        self._largest = max((part.size for part in parts), default=0)
        for self._at_work in parts:
            yield self._at_work

    def _smaller(self, size: int, ran_out: bool) -> int:
        """The next budget after micro-batches of a size did not fit: what fitted before a try of more, else half."""
        if self._fitted_before and not ran_out:
            self._too_many = min(size, self._too_many or size)
            if self._fitted_before < size:
                return self._fitted_before
        return max(1, min(self.tokens, size) // 2)

    def _larger(self) -> int:
        """The next budget to try: half of the way to what did not fit; if that is near, twice as many.

        So much may fit again: memory that others held, or one large picture that is past.
        """
        half_way = (self.tokens + self._too_many) // 2
        if half_way - self.tokens > _SMALLEST_GAIN * self.tokens:
            return half_way
        return min(2 * self.tokens, self._wished)

    def _fitted(self, ran_out: bool) -> None:
        """Decides what the next call begins with."""
        if ran_out:
            self._wait = min(2 * self._wait, _LONGEST_WAIT) if self._fitted_before else self._wait
            self._waited = self._fitted_before = 0
        elif self.tokens == self._wished:
            self._wait, self._too_many = 1, 0
        else:
            self._waited += 1
            if self.tokens >= self._too_many:
                self._too_many = 0
            if self._waited >= self._wait:
                self._fitted_before, self.tokens, self._waited = self.tokens, self._larger(), 0


class Memory:
    """What a training knows of the memory that there is: how much goes through the student at once.

    Attributes:
        steps: In training.
        looks: When the held-out loss is measured, which takes less.
    """

    def __init__(self, *, on_gpu: bool, fits: int | None = None, learns: bool = False) -> None:
        """Knows nothing yet.

        Args:
            on_gpu: Where the student is.
            fits: Most tokens and patches that do not run out of memory, where that is known.
            learns: Whether the second step tells how many fit: only on a GPU that it has for itself.
        """
        tokens = min(MICRO_BATCH_TOKENS[on_gpu], fits or sys.maxsize)
        self.steps, self.looks = OomBackoff(tokens), OomBackoff(tokens)
        self.steps.smallest = fits
        self._steps_to_learn = 2 if learns else 0

    def never_begins_anew(self) -> None:
        """Has whatever runs out of memory end with `RanOut`."""
        self.steps.begins_anew = self.looks.begins_anew = False
        self._steps_to_learn = 0

    @contextmanager
    def learnt(self) -> Iterator[None]:
        """Around each step: on a GPU the second, when the optimiser has its state, tells how many tokens fit.

        torch's peak of the GPU's memory begins anew there.
        """
        self._steps_to_learn -= 1
        if self._steps_to_learn:
            yield
            return
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield
        used, (free, _) = torch.cuda.max_memory_allocated() - before, torch.cuda.mem_get_info()
        free += torch.cuda.memory_reserved() - before
        self.steps.grow(tokens_that_fit(self.steps.largest, used, free))

    def remember(self, state: TrainerState) -> None:
        """Has the next checkpoint hold it."""
        saved: Any = state.stateful_callbacks  # a mapping; the Trainer saves what is in it
        saved[_MEMORY] = {"steps": self.steps.state, "looks": self.looks.state}

    def recall(self, state: TrainerState) -> None:
        """Goes on with what a checkpoint holds."""
        known = _known(state)
        if known:
            self.steps.restore(known["steps"])
            self.looks.restore(known["looks"])
            self._steps_to_learn = max(0, self._steps_to_learn - state.global_step)


def tokens_that_fit(tokens: int, used: float, free: float) -> int:
    """Tokens and patches that memory takes in a micro-batch.

    Args:
        tokens: Those of one that was trained on.
        used: Bytes that it needed.
        free: Bytes that are there for micro-batches.
    """
    fit = min(_MOST_TOKENS, int(tokens * _SHARE_OF_FREE * free / max(1.0, used)))
    return fit // _STEP_OF_TOKENS * _STEP_OF_TOKENS


def fewest_tokens(state: TrainerState) -> int | None:
    """The fewest tokens that micro-batches were cut to after memory ran out; None: it never did."""
    known = _known(state)
    return known["steps"]["smallest"] if known else None


def _known(state: TrainerState) -> dict[str, dict[str, int | None]] | None:
    saved: Any = state.stateful_callbacks
    found: dict[str, dict[str, int | None]] | None = saved.get(_MEMORY)
    return found


def _does_not_fit(problem: Exception) -> WorkFailed:
    said = next(iter(str(problem).splitlines()), "out of memory")
    advice = (
        "To use less: level.gradient_checkpointing: true, a smaller loading.student.max_pixels, "
        "level.method: lora or qlora. The training so far is kept if only gradient_checkpointing changes."
    )
    told = with_who_holds_it(advice, said)
    return WorkFailed(f"a single pair does not fit into memory in training: {said}\n{told}")
