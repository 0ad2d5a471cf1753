"""A run folder: a marker with the run's id, artifacts, a log of events; one process at a time."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import BaseModel

from parityalign.core.artifacts import NO_PARTS, Artifact, put_in_place
from parityalign.core.errors import UserError
from parityalign.core.files import cut_torn_line, write_whole, writing
from parityalign.core.layout import EVENTS
from parityalign.core.manifests import BEGUN, as_json, read_object
from parityalign.core.seals import sealed

LOCK = ".lock"
OWNER = ".lock.pid"
"""Which process holds the lock, for messages. A file of its own: a locked one cannot be read on Windows."""
MARKER = ".parityalign.json"
"""File that makes a folder a run folder, with the run's id."""


class _Marker(BaseModel):
    run: str


class RunFolder:
    """A folder that holds everything one alignment produced; a `with` takes its lock.

    Attributes:
        path: The folder.
        id: The run's id, from the marker in the folder; known once the lock is taken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = ""
        # An object holds the lock, whichever of its threads lets go of it.
        self._lock = FileLock(path / LOCK, thread_local=False)

    def __enter__(self) -> Self:
        """Takes the lock.

        Raises:
            UserError: Another process is using the folder, or the folder cannot be created.
        """
        if (self.path / LOCK).is_symlink():
            raise UserError(f"{self.path / LOCK} is a symbolic link, and a lock is not taken through one. Delete it.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            _write_anew(self.path / OWNER, f"{os.getpid()}\n")
            self.id = self._marked()
        except Timeout:
            raise UserError(
                f"the run folder {self.path} is in use by another process (pid {self._owner()}).\n"
                "Wait for it to end, or name another folder as the run."
            ) from None
        except UserError:  # from the marker
            self._lock.release()
            raise
        except OSError as problem:
            self._lock.release()
            raise UserError(f"cannot use {self.path} as a run folder: {problem.strerror}") from problem
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the lock back; the system does so too when the process dies."""
        self._lock.release()

    def _marked(self) -> str:
        """The id in the marker, which is written if there is none."""
        found = read_marker(self.path)
        if not found:
            found = uuid4().hex
            write_whole(self.path / MARKER, as_json(sealed({"run": found})))
        return found

    def _owner(self) -> str:
        """Who wrote its number last; it may not have done so yet."""
        file = self.path / OWNER
        return (file.read_text(encoding="utf-8").strip() if file.is_file() else "") or "unknown"

    def artifact(
        self,
        name: str,
        *,
        inputs: Mapping[str, str],
        settings: Mapping[str, object],
        version: int = 1,
        parts: Mapping[str, str] = NO_PARTS,
    ) -> Artifact:
        """The artifact in the folder `name`, ready to be read (if finished) or worked on.

        Args:
            name: Folder below the run folder, such as `pairs`.
            inputs: What it is made from: {artifact, model or file: digest}.
            settings: The settings that it depends on, by their dotted names (`level.epochs`).
            version: Raised when the code's output changes for the same inputs and settings.
            parts: For inputs of which only a part matters, the digest of that part: it decides instead of theirs.

        A finished artifact of other inputs, settings or version stays until the new one is finished; `redone_because`
        says what changed.
        """
        put_in_place(self.path / name)
        artifact = self.peek(name, inputs=inputs, settings=settings, version=version, parts=parts)
        if artifact.redone_because:
            self.event("redone", artifact=name, because=artifact.redone_because)
        if artifact.finished:
            (artifact.path / BEGUN).unlink(missing_ok=True)  # a kill may have come between the two files
            artifact.confirm()
        else:
            artifact.begin()
        return artifact

    def peek(
        self,
        name: str,
        *,
        inputs: Mapping[str, str],
        settings: Mapping[str, object],
        version: int = 1,
        parts: Mapping[str, str] = NO_PARTS,
    ) -> Artifact:
        """Like `artifact`, but changes nothing on the disk."""
        path = self.path / name
        return Artifact(path, inputs=inputs, settings=settings, version=version, run=self.path, parts=parts)

    def event(self, kind: str, **fields: object) -> None:
        """Adds a line with a UTC time stamp to `events.jsonl`."""
        path = self.path / EVENTS
        row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **fields}
        with writing(path):
            cut_torn_line(path)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def read_marker(run: Path) -> str:
    """The id of a run folder; empty if it has none.

    Raises:
        UserError: The marker is damaged.
    """
    marker = run / MARKER
    found = read_object(marker, _Marker) if marker.is_file() else None
    return str(found["run"]) if found else ""


def _write_anew(path: Path, text: str) -> None:
    """Writes a file that was not there before, so that no link leads the writing elsewhere."""
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
