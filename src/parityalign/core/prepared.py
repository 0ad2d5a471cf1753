"""Where prepared pictures may be kept while a run works: beside the run, up to a bound."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from parityalign.core.files import files_below


@dataclass(frozen=True)
class PictureRoom:
    """A folder for prepared pictures."""

    folder: Path
    most: int
    """Bytes of files that may lie there, in all."""
    say: Callable[[str], None]
    """Tells whoever runs this of trouble that the run goes on without."""
    sharers: int = 1
    """Processes that keep pictures there, each its part of what is left."""

    def left(self) -> int:
        """Bytes that this process may still write; at most half of what the disk has, so that the run does not lack it.

        Raises:
            OSError: The disk refused.
        """
        used = sum(map(_size, files_below(self.folder))) if self.folder.is_dir() else 0
        free = shutil.disk_usage(self.folder.parent).free
        return (min(self.most, (free + used) // 2) - used) // self.sharers


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process has just given it its name
        return 0


_room: ContextVar[PictureRoom | None] = ContextVar("room", default=None)


@contextmanager
def keeping_pictures(room: PictureRoom | None) -> Iterator[None]:
    """Inside the `with`, models that are loaded keep the pictures that they prepare there, and find those of others."""
    before = _room.set(room)
    try:
        yield
    finally:
        _room.reset(before)


def room_for_pictures() -> PictureRoom | None:
    """Where pictures may be kept; None: nowhere."""
    return _room.get()
