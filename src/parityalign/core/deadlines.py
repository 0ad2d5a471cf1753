"""Work that must not take for ever."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class TookTooLongError(Exception):
    """The work was not done in time."""


def in_time(work: Callable[[], T], seconds: float) -> T:
    """What `work` returns or raises.

    It runs in a thread of its own, which is left alone when its time is over; a pool would wait for it at the end.

    Raises:
        TookTooLongError: It takes longer.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as problem:  # noqa: BLE001 - raised again by whoever waits
            done.set_exception(problem)

    Thread(target=run, name="in time", daemon=True).start()
    try:
        return done.result(seconds)
    except TimeoutError as problem:
        if done.done():  # its own
            raise
        raise TookTooLongError from problem
