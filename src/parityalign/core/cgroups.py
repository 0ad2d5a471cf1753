"""What control groups let this process take: containers and the jobs of a cluster have limits below the machine's.

A limit of any group around the innermost one counts too. https://docs.kernel.org/admin-guide/cgroup-v2.html, and its
first version beside it.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_GROUPS = Path("/sys/fs/cgroup")
_OF_THIS_PROCESS = Path("/proc/self/cgroup")


class _MemoryFiles(NamedTuple):
    """Where a group says what it may take, what it takes, and what of that are files that it can give back."""

    most: str
    used: str
    given_back: str


_MEMORY = {
    2: _MemoryFiles("memory.max", "memory.current", "inactive_file"),
    1: _MemoryFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def memory_limits() -> Iterator[int]:
    """Bytes that each group may take, of those that have a limit."""
    for version, group in _groups("memory"):
        with suppress(OSError, ValueError):  # there is no such file, or no limit in it
            yield int((group / _MEMORY[version].most).read_text())


def memory_left() -> Iterator[int]:
    """Bytes that each group may still take; what it holds of files that were read it gives back."""
    for version, group in _groups("memory"):
        most, used, given_back = _MEMORY[version]
        with suppress(OSError, ValueError, KeyError):
            held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield int((group / most).read_text()) - int((group / used).read_text()) + int(held[given_back])


def core_limits() -> Iterator[float]:
    """Cores whose time each group may take, of those that have a limit."""
    for version, group in _groups("cpu"):
        with suppress(OSError, ValueError):
            if version == 1:
                quota, period = ((group / f"cpu.cfs_{each}_us").read_text() for each in ("quota", "period"))
            else:
                quota, period = (group / "cpu.max").read_text().split()
            if int(quota) > 0:
                yield int(quota) / int(period)


def _groups(controller: str) -> Iterator[tuple[int, Path]]:
    """The version and folder of each group around this process, innermost first."""
    with suppress(OSError, ValueError):  # another system
        for line in _OF_THIS_PROCESS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                version, outermost = 2, _GROUPS
            elif controller in controllers.split(","):
                version, outermost = 1, _GROUPS / controller
            else:
                continue
            innermost = outermost / path.strip("/")
            yield from ((version, each) for each in (innermost, *innermost.parents) if each.is_relative_to(outermost))
