"""Python processes beside this one, which work for it and end with it.

multiprocessing's own would import the user's program once more in each, which has to be written for that; these are as
fresh as its `spawn` makes them, and talk through its pipes.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from tempfile import TemporaryFile
from typing import IO, Protocol, TypeVar

from parityalign.core import at_work
from parityalign.core.at_work import Failed, Work
from parityalign.core.errors import WorkFailed
from parityalign.core.plain_text import printable

_READ = 2**14
"""Bytes of the end of its output that are read."""
_LINES, _LINE = 8, 300
"""Lines, and characters of each, that are shown."""


def begin_process(
    module: str, descriptor: int, environment: Mapping[str, str], output: IO[bytes] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a fresh Python that calls `main(descriptor)` of a module.

    Args:
        module: Its full name.
        descriptor: Of a pipe or socket, which the process inherits.
        environment: Variables that it has otherwise than this process.
        output: Where what it writes goes; None: nowhere.

    Raises:
        OSError: The system starts no more processes.
        ValueError: It hands on no descriptors.
    """
    written = output if output is not None else subprocess.DEVNULL
    return subprocess.Popen(
        # Not `-m`, by which what it sends would be of the module `__main__`.
        [sys.executable, "-P", "-c", f"from {module} import main; main({descriptor})"],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=written,
        stderr=written,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **environment},
        start_new_session=True,  # out of reach of the terminal's Ctrl-C
    )


class WorkerEnded(Exception):
    """A worker is gone without a word; the message says how, with the last that it wrote."""


class Working(Protocol):
    """Something that does a piece of work elsewhere, such as a `Worker`."""

    def send(self, message: object) -> None:
        """Sends it a message; nothing happens if it is gone, as `receive` tells."""

    def receive(self) -> object:
        """Its next message; waits for it.

        Raises:
            WorkerEnded: It is gone.
            Exception: Its work ended with this one.
        """

    def stop(self) -> None:
        """Ends it at once; returns when its memory is free."""


W = TypeVar("W", bound=Working)


class Workplace(Protocol[W]):
    """Where several do the same work."""

    @property
    def places(self) -> int:
        """How many there may be."""

    def start(self, place: int) -> W:
        """Starts one.

        Args:
            place: Its place, below `places`.
        """

    def waiting(self, workers: Sequence[W]) -> list[W]:
        """Those of its workers that have a message or are gone; waits until one is."""

    def stop(self, workers: Sequence[W]) -> None:
        """Ends several of its workers at once; returns when their memory is free."""


class Worker:
    """A process that does one piece of work."""

    def __init__(self, work: Work, environment: Mapping[str, str]) -> None:
        """Starts it.

        Args:
            work: What it does.
            environment: Variables that it has otherwise than this process.

        Raises:
            WorkFailed: The system starts no more processes, or none that can be handed a pipe.
        """
        self._pipe, theirs = Pipe()
        self._output = TemporaryFile()  # noqa: SIM115 - as long as the process
        try:
            self._process = begin_process(at_work.__name__, theirs.fileno(), environment, self._output)
        except (OSError, ValueError) as problem:  # ValueError: Windows hands on no descriptors
            self._pipe.close()
            raise WorkFailed(f"cannot start another process: {problem}. Work with one instead") from problem
        finally:
            theirs.close()
        self.send(work)

    @property
    def pipe(self) -> Connection:
        """For `waiting`."""
        return self._pipe

    @property
    def pid(self) -> int:
        """Its number to the system."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Sends it a message; nothing happens if it is gone, as `receive` tells."""
        with suppress(OSError):
            self._pipe.send(message)

    def receive(self) -> object:
        """Its next message; waits for it.

        Raises:
            WorkerEnded: It is gone.
            Exception: Its work ended with this one.
        """
        try:
            message: object = self._pipe.recv()
        except (EOFError, OSError) as problem:
            raise WorkerEnded(self._last_words()) from problem
        if isinstance(message, Failed):
            raise message.problem
        return message

    def stop(self) -> None:
        """Ends it at once, with what it started in its process group; returns when its memory is free."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pipe.close()
        self._output.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        how = f"with status {status}" if status >= 0 else f"by signal {-status}"
        end = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, end - _READ))
        lines = self._output.read().decode("utf-8", "replace").splitlines()
        shown = [printable(line.rstrip())[:_LINE] for line in lines if line.strip()][-_LINES:]
        return "\n  | ".join([f"process {self.pid} ended {how}", *shown])


class ThisMachine:
    """A `Workplace` of processes beside this one."""

    def __init__(self, work: Work, environments: Sequence[Mapping[str, str]]) -> None:
        """Starts nothing yet.

        Args:
            work: What each does.
            environments: Of each place, the variables that a process has otherwise than this one.
        """
        self._work, self._environments = work, environments

    @property
    def places(self) -> int:
        """How many processes there may be."""
        return len(self._environments)

    def start(self, place: int) -> Worker:
        """Starts a process."""
        return Worker(self._work, self._environments[place])

    def waiting(self, workers: Sequence[Worker]) -> list[Worker]:
        """Those that have a message or are gone; waits until one is."""
        return waiting(workers)

    def stop(self, workers: Sequence[Worker]) -> None:
        """Ends several; returns when their memory is free."""
        for each in workers:
            each.stop()


def waiting(workers: Sequence[Worker], timeout: float | None = None) -> list[Worker]:
    """Those that have a message or are gone; waits until one is, or so many seconds."""
    ready = wait([worker.pipe for worker in workers], timeout)
    return [worker for worker in workers if worker.pipe in ready]
