"""The inside of a worker: a Python process that does what another sends it, and ends with that one, by `kill -9` too.

Its only tie is one pipe, which the system closes with the other process, however that ends.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import NamedTuple, Protocol

from parityalign.core.errors import UserError


class Failed(NamedTuple):
    """A message of a worker: its work ended with this."""

    problem: Exception


class Post(Protocol):
    """What connects a worker's work with the process that wanted it."""

    def send(self, message: object) -> None:
        """Sends a message, which has to be picklable."""

    def received(self, *, wait: bool) -> list[object]:
        """The messages that have come since the last time; waits for one if there is none and `wait` says so."""


Work = Callable[[Post], None]
"""What a worker does: a function of a module, or a `partial` of one, with picklable arguments."""


class _Pipe:
    """The `Post` of this process; a thread reads, so that the end of the pipe is noticed in the midst of work."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = Lock()  # threads that prepare pictures have their say too
        self._inbox: SimpleQueue[object] = SimpleQueue()
        Thread(target=self._read, name="post", daemon=True).start()

    def send(self, message: object) -> None:
        """Sends a message; ends the process if nobody is there to read it."""
        try:
            with self._sending:
                self._pipe.send(message)
        except OSError:
            _end()

    def received(self, *, wait: bool) -> list[object]:
        """The messages since the last time."""
        found = [self._inbox.get()] if wait else []
        try:
            while True:
                found.append(self._inbox.get_nowait())
        except Empty:
            return found

    def _read(self) -> None:
        try:
            while True:
                self._inbox.put(self._pipe.recv())
        except (EOFError, OSError):  # whoever wanted the work is gone
            pass
        except Exception:  # noqa: BLE001 - such as a module that cannot be imported here; it is in the log then
            traceback.print_exc()
        _end()


def main(descriptor: int) -> None:
    """Does the work that comes first through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process hears Ctrl-C and decides
    post = _Pipe(Connection(descriptor))
    (work,) = post.received(wait=True)
    try:
        work(post)  # type: ignore[operator]
    except Exception as problem:  # noqa: BLE001 - raised again over there
        post.send(Failed(_with_its_place(problem)))


def _with_its_place(problem: Exception) -> Exception:
    """The exception; of a bug with its traceback in words, as that stays behind."""
    if not isinstance(problem, UserError):
        problem.add_note("".join(traceback.format_exception(problem)))
    return problem


def _end() -> None:
    """Ends the process and what it started in its group: nobody is left to tell, or to end them."""
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)
