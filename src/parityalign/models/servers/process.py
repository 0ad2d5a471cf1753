"""The process of a server: its log, whether it runs, its end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from parityalign.core import WorkFailed, printable

GRACE = 10.0
"""Seconds that a server has to end by itself."""
_WATCHER = Path(__file__).with_name("watcher.py")
_READ = 2**18
"""Bytes of the log's end that are read."""
_LINE = 300
"""Characters of a line that are shown."""


class ServerProcess:
    """A server, its watcher, and whatever else it started: one process group, which ends as a whole.

    Attributes:
        log: What it writes.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Starts it.

        Raises:
            WorkFailed: The log cannot be written, or the system starts no more processes.
        """
        self.log = log
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as out:
                self._begins = os.fstat(out.fileno()).st_size
                self._watcher = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(_WATCHER), str(GRACE), *command],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=out,
                    cwd=log.parent,
                    env=dict(environment),
                    start_new_session=True,  # out of reach of the terminal's Ctrl-C
                )
        except OSError as problem:
            raise WorkFailed(f"cannot start {command[0]}, whose log is {log}: {problem.strerror}") from problem

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._watcher.poll() is None

    def listens(self, port: int) -> bool:
        """Whether it is this server that takes connections at a port, and not another program; True if nobody tells."""
        try:
            return any(port in _ports(each) for each in filter(self._is_of_it, psutil.process_iter(["status"])))
        except psutil.AccessDenied:
            return True

    def stop(self) -> None:
        """Ends it with all its processes; returns when they are gone."""
        try:
            if self._watcher.stdin:
                self._watcher.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._watcher.wait(GRACE + 5)
        finally:  # interrupted, or the watcher was killed and the server was not
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._watcher.pid, signal.SIGKILL)
            self._watcher.wait()
            self._wait_for_the_others()

    def _wait_for_the_others(self) -> None:
        """Until none of the group is left: a GPU's memory is free only then."""
        end = time.monotonic() + GRACE
        while time.monotonic() < end and any(map(self._is_of_it, psutil.process_iter(["status"]))):
            time.sleep(0.05)

    def _is_of_it(self, process: psutil.Process) -> bool:
        try:
            ended = process.info["status"] == psutil.STATUS_ZOMBIE
            return not ended and os.getpgid(process.pid) == self._watcher.pid
        except OSError:  # it is gone
            return False

    def lines(self) -> list[str]:
        """The end of what this process wrote, as printable lines; empty ones are left out."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._begins, self.log.stat().st_size - _READ))
                text = log.read(_READ).decode("utf-8", "replace")
        except OSError:
            return []
        # Progress bars overwrite their line.
        shown = (printable(line.rpartition("\r")[2].rstrip()) for line in text.replace("\r\n", "\n").split("\n"))
        return [line[:_LINE] for line in shown if line.strip()]


def _ports(process: psutil.Process) -> set[int]:
    """At which a process takes connections."""
    with suppress(psutil.NoSuchProcess):  # it has just ended
        return {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    return set()
