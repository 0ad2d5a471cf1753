"""A run folder: append-only streams of records, manifests written last, one process at a time.

What a kill at any moment may leave behind, and why it does no harm:
an artifact without `manifest.json` is unfinished and is continued; a torn last line is cut off before the
next append; `manifest.json` itself is moved into place whole. What made an artifact (inputs, settings,
version, remembered facts) is recorded in `begun.json` until it is finished and in `manifest.json` from
then on.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout

from parityalign import __version__
from parityalign.core.errors import UserError
from parityalign.core.files import (
    HALF_WRITTEN,
    cut_torn_line,
    digest_of_files,
    file_digest,
    folder_files,
    write_whole,
    writing,
)
from parityalign.core.jsonl import Stream
from parityalign.core.records import Record, content_id

R = TypeVar("R", bound=Record)
T = TypeVar("T")

MANIFEST = "manifest.json"
BEGUN = "begun.json"
REMEMBERED = "remembered"
_NOTES = "notes"
LOCK = ".lock"
OWNER = ".lock.pid"
"""Which process holds the lock, for messages. A file of its own: a locked one cannot be read on Windows."""
BY_CONTENT = "files"
"""Folder of an artifact for files named by their content hash. There can be as many of them as images, so the manifest
does not list them; a record that names one also holds its digest."""


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Digest of the contents of the files that a manifest lists."""
    return digest_of_files({name: entry["sha256"] for name, entry in manifest["files"].items()})


class Artifact:
    """One folder of a run: streams or files, and a manifest that is written last.

    Attributes:
        path: The folder.
        finished: Its manifest is there, made from the same inputs and settings.
        redone_because: What changed, in words, if an artifact of other inputs or settings was thrown away for
            this one; else None.
        also: Facts for the manifest, and a note, that are known only when it finishes: what servers have been asked.
        remembered: Facts for the manifest that the process which finishes it need not know.
    """

    def __init__(
        self,
        path: Path,
        *,
        inputs: Mapping[str, str],
        settings: Mapping[str, object],
        version: int,
    ) -> None:
        self.path = path
        self.also: Callable[[], Mapping[str, object]] = dict
        plan = {"inputs": dict(inputs), "settings": dict(settings), "version": version}
        self._plan: dict[str, Any] = json.loads(json.dumps(plan))  # as it will be read back: lists for tuples
        manifest = _read_json(path / MANIFEST)
        before = manifest or _read_json(path / BEGUN)
        self.redone_because = _difference(before, self._plan) if before else None
        if manifest and not self.redone_because:
            self.redone_because = _damage(path, manifest)
        self.finished = manifest is not None and self.redone_because is None
        self._manifest = manifest if self.finished else None
        self._continues = before is not None and self.redone_because is None
        self.remembered: dict[str, Any] = (before or {}).get(REMEMBERED, {}) if self._continues else {}

    @property
    def manifest(self) -> dict[str, Any]:
        """What `finish` wrote: counts, facts, inputs, settings, versions, hash and size of each file."""
        if self._manifest is None:
            raise ValueError(f"{self.path} is not finished")
        return self._manifest

    @property
    def digest(self) -> str:
        """Digest of the files' contents: equal whenever the files are equal."""
        return manifest_digest(self.manifest)

    def begin(self) -> None:
        """Makes the folder ready to be worked on: continued where it matches, else emptied.

        Raises:
            UserError: The folder holds something that no run wrote.
        """
        if self._continues:
            return
        self._refuse_unmarked()
        discarded = self.path.with_name(f".{self.path.name}.discarded")
        with writing(self.path):
            shutil.rmtree(discarded, ignore_errors=True)
            if self.path.exists():
                # Moved away at once: a kill while deleting must not leave half of it in place.
                self.path.replace(discarded)
                shutil.rmtree(discarded)
            self.path.mkdir(parents=True)
        self._continues = True
        self._write_begun()

    def _refuse_unmarked(self) -> None:
        if not self.path.exists() or any((self.path / mark).exists() for mark in (MANIFEST, BEGUN)):
            return
        # A kill may come before the first mark is whole.
        others = [path for path in _entries(self.path) if path.name != BEGUN + HALF_WRITTEN]
        if others:
            raise UserError(
                f"{others[0]} is in the way, and no run wrote it: {self.path} has neither {MANIFEST} nor {BEGUN}.\n"
                "It was left as it is. Name another folder as the run, or move it away."
            )

    def remember(self, **facts: object) -> None:
        """Keeps facts for the manifest, written to disk at once so that a kill loses none of them.

        Args:
            facts: JSON values; an earlier one of the same name is replaced.

        Raises:
            ValueError: The artifact is finished.
        """
        if self.finished:
            raise ValueError(f"{self.path} is finished and takes no more facts")
        self.remembered |= facts
        self._write_begun()

    def note(self, text: str) -> None:
        """Keeps a sentence for people, on the disk at once; the manifest has each once, in the order of telling."""
        notes = self.remembered.get(_NOTES, [])
        if text not in notes:
            self.remember(**{_NOTES: [*notes, text]})

    def _write_begun(self) -> None:
        remembered = {REMEMBERED: self.remembered} if self.remembered else {}
        write_whole(self.path / BEGUN, _as_json({**self._plan, **remembered}))

    def stream(self, file: str, record_type: type[R]) -> Stream[R]:
        """The stream in `file` (such as `pairs.jsonl`), to read and, while unfinished, to append to."""
        return Stream(self.path / file, record_type, read_only=self.finished)

    def finish(self, counts: Mapping[str, int], **facts: object) -> None:
        """Writes the manifest; from then on the artifact is finished and unchanged.

        Args:
            counts: How many of what, for people and for the report.
            facts: Anything else worth keeping, JSON values only.
        """
        names = [name for name in folder_files(self.path, but=BY_CONTENT) if name not in (MANIFEST, BEGUN)]
        files = {
            name: {"sha256": file_digest(self.path / name), "bytes": (self.path / name).stat().st_size}
            for name in names
        }
        known = {**self.remembered, **self.also(), **facts}
        notes = [known.pop("note", ""), *known.pop(_NOTES, [])]
        manifest = {
            "counts": dict(counts),
            **known,
            **({"note": " ".join(filter(None, notes))} if any(notes) else {}),
            **self._plan,
            "fingerprint": content_id(_as_json(self._plan)),
            "parityalign": __version__,
            "files": files,
        }
        write_whole(self.path / MANIFEST, _as_json(manifest))
        (self.path / BEGUN).unlink(missing_ok=True)
        self._manifest = json.loads(_as_json(manifest))
        self.finished = True


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest that a stage writes last, None where the stage has not finished.

    Raises:
        UserError: The manifest is not a JSON object.
    """
    manifest = _read_json(folder / MANIFEST)
    if manifest is not None and not isinstance(manifest, dict):
        raise UserError(f"{folder / MANIFEST} is damaged: it is not a JSON object. Delete the folder {folder}.")
    return manifest


def stale_inputs(run: Path, artifact: str) -> list[str]:
    """Folders of the artifacts that a finished one was made from and that have since changed or gone.

    This is the one definition of "up to date" for readers of a run folder. Inputs that are not artifacts (models,
    prompts, image sources) are checked by the run itself.
    """
    manifest = read_manifest(run / artifact) or {"inputs": {}}
    known = {label: digest for label, digest in manifest["inputs"].items() if " " not in label}
    return [label for label, digest in known.items() if digest != _identity(read_manifest(run / label))]


def _identity(manifest: Mapping[str, Any] | None) -> str | None:
    """The label of an artifact in other artifacts' inputs."""
    return None if manifest is None else input_digest(manifest)


def input_digest(manifest: Mapping[str, Any]) -> str:
    """The digest of an artifact in the inputs of those made from it: its files' contents.

    For a test split the state of its source counts too, since its image files may lie outside the run.
    """
    files = manifest_digest(manifest)
    source = manifest["inputs"].get("files")
    return content_id(files, source) if source else files


class RunFolder:
    """A folder that holds everything one alignment produced; a `with` takes its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
        except Timeout:
            raise UserError(
                f"the run folder {self.path} is in use by another process (pid {self._owner()}).\n"
                "Wait for it to end, or name another folder as the run."
            ) from None
        except OSError as problem:
            self._lock.release()
            raise UserError(f"cannot use {self.path} as a run folder: {problem.strerror}") from problem
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the lock back; the system does so too when the process dies."""
        self._lock.release()

    def _owner(self) -> str:
        """Who wrote its number last; it may not have done so yet."""
        file = self.path / OWNER
        return (file.read_text(encoding="utf-8").strip() if file.is_file() else "") or "unknown"

    def artifact(
        self, name: str, *, inputs: Mapping[str, str], settings: Mapping[str, object], version: int = 1
    ) -> Artifact:
        """The artifact in the folder `name`, ready to be read (if finished) or worked on.

        Args:
            name: Folder below the run folder, such as `pairs`.
            inputs: What it is made from: {artifact, model or file: digest}.
            settings: The settings that it depends on, by their dotted names (`level.epochs`).
            version: Raised when the code's output changes for the same inputs and settings.

        An artifact of other inputs, settings or version is deleted; `redone_because` says what changed.
        """
        artifact = self.peek(name, inputs=inputs, settings=settings, version=version)
        if artifact.redone_because:
            self.event("redone", artifact=name, because=artifact.redone_because)
        if artifact.finished:
            (artifact.path / BEGUN).unlink(missing_ok=True)  # a kill may have come between the two files
        else:
            artifact.begin()
        return artifact

    def peek(
        self, name: str, *, inputs: Mapping[str, str], settings: Mapping[str, object], version: int = 1
    ) -> Artifact:
        """Like `artifact`, but changes nothing on the disk."""
        return Artifact(self.path / name, inputs=inputs, settings=settings, version=version)

    def event(self, kind: str, **fields: object) -> None:
        """Adds a line with a UTC time stamp to `events.jsonl`."""
        path = self.path / "events.jsonl"
        row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **fields}
        with writing(path):
            cut_torn_line(path)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """How the two plans differ, in words; None if they are equal."""
    old, new = before["settings"], now["settings"]
    either = {**old, **new}
    found = [
        f"{key} was {_short(old[key])}, is {_short(new[key])}"
        for key in sorted(old.keys() & new.keys())
        if old[key] != new[key]
    ]
    found += [
        f"{key} ({_short(either[key])}) " + ("matters now" if key in new else "no longer matters")
        for key in sorted(old.keys() ^ new.keys())
        if either[key] is not None
    ]
    found += [
        f"its input {key} "
        + ("changed" if key in before["inputs"] and key in now["inputs"] else "was added or removed")
        for key in sorted({*before["inputs"], *now["inputs"]})
        if before["inputs"].get(key) != now["inputs"].get(key)
    ]
    if before["version"] != now["version"]:
        found.append(f"parityalign now makes version {now['version']} of it, this was version {before['version']}")
    return "; ".join(found) or None


def _damage(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """Which file of a finished artifact is gone or has another size; None if all are in place."""
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"its file {name} is missing"
        if path.stat().st_size != entry["bytes"]:
            return f"its file {name} was changed by hand"
    return None


def _entries(path: Path) -> list[Path]:
    """The contents of a folder; for a file, the file itself."""
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _write_anew(path: Path, text: str) -> None:
    """Writes a file that was not there before, so that no link leads the writing elsewhere."""
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _as_json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise UserError(
            f"{path} is damaged: {problem}\nDelete the folder {path.parent} and run the same command to make it again."
        ) from problem
    return content
