"""Artifacts: folders of a run with streams or files, and a manifest that is written last.

What a kill at any moment may leave behind, and why it does no harm:
an artifact without `manifest.json` is unfinished and is continued; a torn last line is cut off before the
next append; `manifest.json` itself is moved into place whole. What made an artifact (inputs, settings,
version, remembered facts) is recorded in `begun.json` until it is finished and in `manifest.json` from
then on. A finished artifact that has to be made again stays in place until the new one is whole, which is
made in a folder beside it.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from parityalign import __version__
from parityalign.core.disk import folder_to_disk, to_disk
from parityalign.core.errors import UserError
from parityalign.core.files import (
    HALF_WRITTEN,
    digest_of_files,
    file_digest,
    folder_files,
    found_path,
    kept_path,
    write_whole,
    writing,
)
from parityalign.core.jsonl import Stream
from parityalign.core.manifests import (
    BEGUN,
    MANIFEST,
    as_json,
    difference,
    manifest_digest,
    missing_file,
    read_begun,
    read_manifest,
    refuse_changed_file,
    trusts_files,
)
from parityalign.core.records import Record, content_id
from parityalign.core.seals import sealed

R = TypeVar("R", bound=Record)

REMEMBERED = "remembered"
KEEP = "keep"
"""Fact of a manifest: the artifact took so long to make that it is kept when it is replaced."""
EARLIER = "earlier"
"""Folder beside such artifacts, for those that were replaced."""
_NOTES = "notes"
BY_CONTENT = "files"
"""Folder of an artifact for files named by their content hash. There can be as many of them as images, so the manifest
does not list them; a record that names one also holds its digest."""
NO_PARTS: Mapping[str, str] = MappingProxyType({})


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
        parts: Mapping[str, str] = NO_PARTS,
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
        self.redone_because = difference(known, self._plan) if known else None
        if manifest and not self.redone_because:
            self.redone_because = missing_file(path, manifest)
        self.finished = manifest is not None and self.redone_because is None
        self._manifest = manifest if self.finished else None
        self._replaced = manifest if manifest and not self.finished else None
        self.path = _beside(path) if self._replaced else path
        before = read_begun(self.path) if self._replaced else known
        self._continues = before is not None and difference(before, self._plan) is None and not self.finished
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

    @property
    def keeps_replaced(self) -> bool:
        """Whether there is an artifact in its place that will be kept in `earlier/`."""
        return bool((self._replaced or {}).get(KEEP))

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
                refuse_changed_file(self.path, name, entry["sha256"])
                self._checked.add(name)

    def check_content(self) -> None:
        """Compares the files that are named by their content with their names.

        Raises:
            UserError: One is damaged.
        """
        done = self._content_checked or trusts_files()
        for path in sorted((self.path / BY_CONTENT).rglob("*")) if not done else ():
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

    def note(self, text: str) -> bool:
        """Keeps a sentence for people, on the disk at once; the manifest has each once, in the order of telling.

        Returns:
            Whether it is new.
        """
        notes = self.remembered.get(_NOTES, [])
        if text in notes:
            return False
        self.remember(**{_NOTES: [*notes, text]})
        return True

    def _write_begun(self) -> None:
        remembered = {REMEMBERED: self.remembered} if self.remembered else {}
        write_whole(self.path / BEGUN, as_json(sealed({**self._plan, **remembered})))

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
            to_disk(self.path, list(files))
        known = {**self.remembered, **self.also(), **facts}
        notes = [known.pop("note", ""), *known.pop(_NOTES, [])]
        self._write_manifest(
            {
                "counts": dict(counts),
                **known,
                **({"note": " ".join(filter(None, notes))} if any(notes) else {}),
                **self._plan,
                "of": self._of,
                "fingerprint": content_id(as_json(self._plan)),
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
        write_whole(self.path / MANIFEST, as_json(sealed(json.loads(as_json(manifest)))))
        self._manifest = json.loads(as_json(manifest))


def put_in_place(path: Path) -> None:
    """Replaces a finished artifact by the one made beside it; a kill in between is mended by the next call.

    Of the old one only what its manifest lists is deleted; anything else moves into the new one. One whose manifest
    says `keep`, such as a student that was taken, moves into `earlier/` as a whole.
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
            manifest = read_manifest(old) or {"files": {}}
            if manifest.get(KEEP):
                _keep(old, path)
            else:
                _delete_listed(old, path, manifest)


def _keep(old: Path, path: Path) -> None:
    earlier = path.parent / EARLIER
    earlier.mkdir(exist_ok=True)
    # Whoever runs it may have renamed one, which then counts no more.
    ends = (each.name.removeprefix(f"{path.name}-") for each in earlier.iterdir())
    number = 1 + max((int(end) for end in ends if end.isdecimal()), default=0)
    old.replace(earlier / f"{path.name}-{number}")


def _delete_listed(old: Path, into: Path, manifest: Mapping[str, Any]) -> None:
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
