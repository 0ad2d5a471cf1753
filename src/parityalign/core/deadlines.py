"""Work that must not take for ever."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread, get_ident
from time import monotonic
from typing import TypeVar

T = TypeVar("T")
_BUSY = 10
"""How many times as long work takes at most on a machine that is busy with other things."""
_LEAST_WAIT = 0.1
"""Seconds between two looks at how much of the processor was used."""


class TookTooLongError(Exception):
    """The work was not done in time."""


def in_time(work: Callable[[], T], seconds: float, *, computes: bool = False) -> T:
    """What `work` returns or raises.

    It runs in a thread of its own, which is left alone when its time is over; a pool would wait for it at the end.

    Args:
        work: The work.
        seconds: By the clock.
        computes: Whether it waits for nothing: then they are seconds of its thread's CPU, of which a busy machine
            gives little.

    Raises:
        TookTooLongError: It takes longer.
    """
    done: Future[T] = Future()
    clock: list[int] = []
    before = time.process_time()

    def run() -> None:
        if hasattr(time, "pthread_getcpuclockid"):
            clock.append(time.pthread_getcpuclockid(get_ident()))
        try:
            done.set_result(work())
        except BaseException as problem:  # noqa: BLE001 - raised again by whoever waits
            done.set_exception(problem)

    end = monotonic() + seconds * (_BUSY if computes else 1)
    Thread(target=run, name="in time", daemon=True).start()
    left = seconds
    while True:
        try:
            return done.result(left)
        except TimeoutError as problem:
            if done.done():  # its own
                raise
            left = min(seconds - _used(clock, before), end - monotonic())
            if left <= 0 or not computes:
                raise TookTooLongError from problem
            left = max(left, _LEAST_WAIT)


def _used(clock: Sequence[int], before: float) -> float:
    """Seconds of CPU that a thread has used; those of the whole process where the system does not tell them apart."""
    if not clock:
        return time.process_time() - before
    try:
        return time.clock_gettime(clock[0])
    except OSError:  # it has just ended
        return 0.0
