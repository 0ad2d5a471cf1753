"""A run folder: artifacts with manifests written last, a marker of its own, one process at a time.

What a kill at any moment may leave behind, and why it does no harm:
an artifact without `manifest.json` is unfinished and is continued; a torn last line is cut off before the
next append; `manifest.json` itself is moved into place whole. What made an artifact (inputs, settings,
version, remembered facts) is recorded in `begun.json` until it is finished and in `manifest.json` from
then on. A finished artifact that has to be made again stays in place until the new one is whole, which is
made in a folder beside it.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from parityalign import __version__
from parityalign.core.disk import folder_to_disk, to_disk
from parityalign.core.errors import UserError
from parityalign.core.files import (
    HALF_WRITTEN,
    cut_torn_line,
    digest_of_files,
    file_digest,
    folder_files,
    found_path,
    kept_path,
    write_whole,
    writing,
)
from parityalign.core.jsonl import Stream
from parityalign.core.layout import EVENTS
from parityalign.core.records import Record, content_id
from parityalign.core.seals import sealed, unsealed

R = TypeVar("R", bound=Record)
T = TypeVar("T")

MANIFEST = "manifest.json"
BEGUN = "begun.json"
REMEMBERED = "remembered"
_NOTES = "notes"
_IDENTITY = "identity"
LOCK = ".lock"
OWNER = ".lock.pid"
"""Which process holds the lock, for messages. A file of its own: a locked one cannot be read on Windows."""
MARKER = ".parityalign.json"
"""File that makes a folder a run folder, with the run's id."""
BY_CONTENT = "files"
"""Folder of an artifact for files named by their content hash. There can be as many of them as images, so the manifest
does not list them; a record that names one also holds its digest."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


class _Entry(BaseModel):
    sha256: str
    bytes: int


class _Manifest(BaseModel):
    """What every manifest has; facts of its stage stand beside it."""

    model_config = ConfigDict(strict=True, extra="allow")

    counts: dict[str, int]
    inputs: dict[str, str]
    settings: dict[str, Any]
    version: int
    fingerprint: str
    parityalign: str
    files: dict[str, _Entry]


class _Marker(BaseModel):
    run: str


class _Begun(BaseModel):
    model_config = ConfigDict(strict=True)

    inputs: dict[str, str]
    settings: dict[str, Any]
    version: int
    remembered: dict[str, Any] = {}


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """What an artifact is to those made from it: its identity if it has one, else its files' contents."""
    files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return str(manifest.get(_IDENTITY) or digest_of_files(files))


class Artifact:
    """One folder of a run: streams or files, and a manifest that is written last.

    Attributes:
        path: The folder; while a finished one is being replaced, the folder beside it where the new one is made.
        run: The run folder. Paths in records are relative to it.
        finished: Its manifest is there, made from the same inputs and settings.
        redone_because: What changed, in words, if there is an artifact of other inputs or settings; else None.
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
        run: Path | None = None,
        parts: Mapping[str, str] = _NOTHING,
    ) -> None:
        self.run = run or path.parent
        self.also: Callable[[], Mapping[str, object]] = dict
        self._place = path
        self._of = dict(inputs)
        plan = {"inputs": {**inputs, **parts}, "settings": dict(settings), "version": version}
        self._plan: dict[str, Any] = json.loads(json.dumps(plan))  # as it will be read back: lists for tuples
        self._checked: set[str] = set()
        self._content_checked = False
        manifest = read_manifest(path)
        known = manifest or read_begun(path)
        self.redone_because = _difference(known, self._plan) if known else None
        if manifest and not self.redone_because:
            self.redone_because = _missing_file(path, manifest)
        self.finished = manifest is not None and self.redone_because is None
        self._manifest = manifest if self.finished else None
        self._replaced = manifest if manifest and not self.finished else None
        self.path = _beside(path) if self._replaced else path
        before = read_begun(self.path) if self._replaced else known
        self._continues = before is not None and _difference(before, self._plan) is None and not self.finished
        self.remembered: dict[str, Any] = (before or {}).get(REMEMBERED, {}) if self._continues else {}

    @property
    def manifest(self) -> dict[str, Any]:
        """What `finish` wrote: counts, facts, inputs, settings, versions, hash and size of each file."""
        if self._manifest is None:
            raise ValueError(f"{self.path} is not finished")
        return self._manifest

    @property
    def digest(self) -> str:
        """Its identity, or a digest of the files' contents so far: equal whenever those are equal."""
        if self.finished:
            return manifest_digest(self.manifest)
        return digest_of_files({name: file_digest(self.path / name) for name in self._own_files()})

    def begin(self) -> None:
        """Makes the folder ready to be worked on: continued where it matches, else emptied.

        Raises:
            UserError: The folder holds something that no run wrote, or what a newer version made.
        """
        if self.finished or self._continues:
            return
        if self._replaced:
            _refuse_newer(self._place, self._replaced)
        elif self._place.exists() and not (self._place / BEGUN).exists():
            self._refuse_unmarked()
        with writing(self.path):
            if self.path.exists():
                # Moved away at once: a kill while deleting must not leave half of it in place.
                discarded = self.path.with_name(f".{self.path.name.lstrip('.')}.discarded")
                shutil.rmtree(discarded, ignore_errors=True)
                self.path.replace(discarded)
                shutil.rmtree(discarded)
            self.path.mkdir(parents=True)
        self._continues = True
        self._write_begun()

    def confirm(self) -> None:
        """Notes, of a finished artifact, the present digests of what it was made from: no part of it matters here."""
        if self.manifest.get("of") != self._of:
            self._write_manifest({**self.manifest, "of": self._of})

    def check(self, *names: str) -> None:
        """Compares files of a finished artifact with its manifest, each once; none given: all.

        Raises:
            UserError: A file is damaged or was changed.
        """
        for name in names or self.manifest["files"]:
            entry = self.manifest["files"].get(name)
            if entry and name not in self._checked:
                _refuse_changed(self.path, name, entry["sha256"])
                self._checked.add(name)

    def check_content(self) -> None:
        """Compares the files that are named by their content with their names.

        Raises:
            UserError: One is damaged.
        """
        for path in sorted((self.path / BY_CONTENT).rglob("*")) if not self._content_checked else ():
            if path.is_file() and path.suffix != HALF_WRITTEN and not file_digest(path).startswith(path.stem):
                raise UserError(
                    f"{path} is damaged: its content is not what it is named by.\n"
                    f"Delete the folder {self.path} and run the same command to make it again."
                )
        self._content_checked = True

    def _refuse_unmarked(self) -> None:
        # A kill may come before the first mark is whole.
        others = [path for path in _entries(self._place) if path.name != BEGUN + HALF_WRITTEN]
        if others:
            raise UserError(
                f"{others[0]} is in the way, and no run wrote it: {self._place} has neither {MANIFEST} nor {BEGUN}.\n"
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
        write_whole(self.path / BEGUN, _as_json(sealed({**self._plan, **remembered})))

    def kept_path(self, path: str) -> str:
        """A path as records have it: relative to the run folder, and as it will be when the artifact is in place."""
        own = Path(path)
        if own.is_relative_to(self.path):
            path = str(self._place / own.relative_to(self.path))
        return kept_path(path, self.run)

    def found_path(self, kept: str) -> str:
        """The inverse of `kept_path`, also while the artifact is not in place yet."""
        path = Path(found_path(kept, self.run))
        inside = not self.finished and path.is_relative_to(self._place)
        return str(self.path / path.relative_to(self._place) if inside else path)

    def stream(self, file: str, record_type: type[R]) -> Stream[R]:
        """The stream in `file` (such as `pairs.jsonl`), to read and, while unfinished, to write.

        Raises:
            UserError: The artifact is finished, and the file is damaged or was changed.
        """
        if self.finished:
            self.check(file)
        return Stream(self.path / file, record_type, read_only=self.finished)

    def finish(self, counts: Mapping[str, int], **facts: object) -> None:
        """Writes the manifest; from then on the artifact is finished and unchanged, on the disk and in its place.

        Args:
            counts: How many of what, for people and for the report.
            facts: Anything else worth keeping, JSON values only. `identity`, a text, says what matters of the artifact
                to those made from it; without it the contents of all its files do.
        """
        files = {
            name: {"sha256": file_digest(self.path / name), "bytes": (self.path / name).stat().st_size}
            for name in self._own_files()
        }
        with writing(self.path):
            to_disk(self.path, files)
        known = {**self.remembered, **self.also(), **facts}
        notes = [known.pop("note", ""), *known.pop(_NOTES, [])]
        self._write_manifest(
            {
                "counts": dict(counts),
                **known,
                **({"note": " ".join(filter(None, notes))} if any(notes) else {}),
                **self._plan,
                "of": self._of,
                "fingerprint": content_id(_as_json(self._plan)),
                "parityalign": __version__,
                "files": files,
            }
        )
        folder_to_disk(self.path)
        (self.path / BEGUN).unlink(missing_ok=True)
        if self.path != self._place:
            put_in_place(self._place)
            self.path = self._place
        self._checked = {*files}
        self.finished = True

    def _own_files(self) -> list[str]:
        return [name for name in folder_files(self.path, but=BY_CONTENT) if name not in (MANIFEST, BEGUN)]

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_whole(self.path / MANIFEST, _as_json(sealed(json.loads(_as_json(manifest)))))
        self._manifest = json.loads(_as_json(manifest))


def put_in_place(path: Path) -> None:
    """Replaces a finished artifact by the one made beside it; a kill in between is mended by the next call.

    Of the old one only what its manifest lists is deleted; anything else moves into the new one.
    """
    new, old = _beside(path), path.with_name(f".{path.name}.old")
    with writing(path):
        if (new / MANIFEST).exists():
            (new / BEGUN).unlink(missing_ok=True)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.replace(old)
            new.replace(path)
            folder_to_disk(path.parent)
        elif old.exists() and not path.exists():
            old.replace(path)
        if old.exists():
            _delete_listed(old, path)


def _delete_listed(old: Path, into: Path) -> None:
    manifest = read_manifest(old) or {"files": {}}
    for name in manifest["files"]:
        (old / name).unlink(missing_ok=True)
    shutil.rmtree(old / BY_CONTENT, ignore_errors=True)
    for name in (MANIFEST, BEGUN):
        (old / name).unlink(missing_ok=True)
    for name in folder_files(old):
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        if not (into / name).exists():
            (old / name).replace(into / name)
    shutil.rmtree(old)


def _beside(path: Path) -> Path:
    """The folder where the successor of a finished artifact is made."""
    return path.with_name(f".{path.name}.new")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest that a stage writes last, None where the stage has not finished.

    Raises:
        UserError: The manifest is damaged.
    """
    return _read_json(folder / MANIFEST, _Manifest)


def refuse_changed(path: Path) -> None:
    """Compares a file at the top of an artifact with the manifest; a file of an unfinished artifact may be anything.

    Raises:
        UserError: It differs: damaged, if the file was not written since, else changed by hand or another program.
    """
    entry = (read_manifest(path.parent) or {"files": {}})["files"].get(path.name)
    if entry and path.exists():
        _refuse_changed(path.parent, path.name, entry["sha256"])


def _refuse_changed(folder: Path, name: str, sha256: str) -> None:
    path = folder / name
    try:
        if file_digest(path) == sha256:
            return
        later = path.stat().st_mtime_ns > (folder / MANIFEST).stat().st_mtime_ns
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}") from problem
    again = f"To have it made again, delete the folder {folder} and run the same command: answers are not asked twice."
    if later:
        raise UserError(
            f"{path} was changed after the run wrote it, by hand or by another program; it was left as it is.\n"
            f"Corrections of pairs belong into a file named by `review` (docs/run-folder.md). {again}"
        )
    raise UserError(f"{path} is damaged: its content differs from the digest in {MANIFEST}.\n{again}")


def read_marker(run: Path) -> str:
    """The id of a run folder; empty if it has none.

    Raises:
        UserError: The marker is damaged.
    """
    marker = run / MARKER
    found = _read_json(marker, _Marker) if marker.is_file() else None
    return str(found["run"]) if found else ""


def stale_inputs(run: Path, artifact: str) -> list[str]:
    """Folders of the artifacts that a finished one was made from and that have since changed or gone.

    This is the one definition of "up to date" for readers of a run folder. Inputs that are not artifacts (models,
    prompts, image sources) are checked by the run itself.
    """
    manifest = read_manifest(run / artifact) or {"inputs": {}}
    known = {label: digest for label, digest in manifest.get("of", manifest["inputs"]).items() if " " not in label}
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
            write_whole(self.path / MARKER, _as_json(sealed({"run": found})))
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
        parts: Mapping[str, str] = _NOTHING,
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
        parts: Mapping[str, str] = _NOTHING,
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


def _missing_file(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """Which file of a finished artifact is gone; None if all are in place."""
    gone = (name for name in manifest["files"] if not (folder / name).is_file())
    return next((f"its file {name} is missing" for name in gone), None)


def _refuse_newer(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuses to replace what a newer version of this package made."""
    made = manifest["parityalign"]
    if _numbers(made) > _numbers(__version__):
        raise UserError(
            f"{folder} was made by parityalign {made}, and this is {__version__}, which would make it again.\n"
            f"Use parityalign {made} or newer for this run, or delete that folder."
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


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


def read_begun(folder: Path) -> dict[str, Any] | None:
    """What an unfinished artifact is being made of; None if there is none.

    Raises:
        UserError: The file is damaged.
    """
    return _read_json(folder / BEGUN, _Begun)


def _read_json(path: Path, kind: type[BaseModel]) -> dict[str, Any] | None:
    """The object in a file of the run, checked; None if there is no file."""
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        kind.model_validate(content)
        content = unsealed(content)
    except (ValueError, RecursionError, OSError) as problem:
        found = problem.errors()[0] if isinstance(problem, ValidationError) else None
        why = f"{'.'.join(map(str, found['loc'])) or 'the file'}: {found['msg']}" if found else str(problem)
        raise UserError(
            f"{path} is damaged: {why}\nDelete the folder {path.parent} and run the same command to make it again."
        ) from problem
    return content
