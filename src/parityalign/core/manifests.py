"""Manifests: what every artifact of a run folder says of itself, and whether it is still true."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from parityalign.core.errors import UserError
from parityalign.core.files import digest_of_files, file_digest, folder_digest
from parityalign.core.layout import CARD, CARD_FIGURE
from parityalign.core.records import content_id
from parityalign.core.seals import unsealed

MANIFEST = "manifest.json"
BEGUN = "begun.json"
_trusts: ContextVar[bool] = ContextVar("trusts", default=False)
IDENTITY = "identity"
"""In a manifest: what matters of the artifact to those made from it."""
_SAID_NOW = {("level.select", "auto"): "gaps"}
"""Settings as an earlier version wrote them, with what manifests say for the same now."""


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


class _Begun(BaseModel):
    model_config = ConfigDict(strict=True)

    inputs: dict[str, str]
    settings: dict[str, Any]
    version: int
    remembered: dict[str, Any] = {}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest that a stage writes last, None where the stage has not finished.

    Raises:
        UserError: The manifest is damaged.
    """
    return read_object(folder / MANIFEST, _Manifest)


def model_digest(folder: Path) -> str:
    """A digest of a model's folder; of a levelled student's without its card, which no model reads."""
    return folder_digest(folder, but=(CARD, CARD_FIGURE) if (folder / MANIFEST).is_file() else ())


def read_begun(folder: Path) -> dict[str, Any] | None:
    """What an unfinished artifact is being made from, None where none was begun.

    Raises:
        UserError: The file is damaged.
    """
    return read_object(folder / BEGUN, _Begun)


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """What an artifact is to those made from it: its identity if it has one, else its files' contents."""
    files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return str(manifest.get(IDENTITY) or digest_of_files(files))


def input_digest(manifest: Mapping[str, Any]) -> str:
    """The digest of an artifact in the inputs of those made from it: its files' contents.

    For a test split the state of its source counts too, since its image files may lie outside the run.
    """
    files = manifest_digest(manifest)
    source = manifest["inputs"].get("files")
    return content_id(files, source) if source else files


def stale_inputs(run: Path, artifact: str) -> list[str]:
    """Folders of the artifacts that a finished one was made from and that have since changed or gone.

    This is the one definition of "up to date" for readers of a run folder. Inputs that are not artifacts (models,
    prompts, image sources) are checked by the run itself.
    """
    manifest = read_manifest(run / artifact) or {"inputs": {}}
    known = {label: digest for label, digest in manifest.get("of", manifest["inputs"]).items() if " " not in label}
    made = {label: read_manifest(run / label) for label in known}
    return [label for label, now in made.items() if now is None or input_digest(now) != known[label]]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """How the two plans differ, in words; None if they are equal."""
    new = now["settings"]
    old = {key: _SAID_NOW.get((key, str(value)), value) for key, value in before["settings"].items()}
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


def missing_file(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """Which file of a finished artifact is gone; None if all are in place."""
    gone = (name for name in manifest["files"] if not (folder / name).is_file())
    return next((f"its file {name} is missing" for name in gone), None)


def refuse_changed(path: Path) -> None:
    """Compares a file at the top of an artifact with the manifest; a file of an unfinished artifact may be anything.

    Raises:
        UserError: It differs: damaged, if the file was not written since, else changed by hand or another program.
    """
    entry = (read_manifest(path.parent) or {"files": {}})["files"].get(path.name)
    if entry and path.exists():
        refuse_changed_file(path.parent, path.name, entry["sha256"])


@contextmanager
def trusting_files(trusts: bool) -> Iterator[None]:
    """Inside the `with`, if `trusts`, files are not compared with their digests."""
    before = _trusts.set(trusts)
    try:
        yield
    finally:
        _trusts.reset(before)


def trusts_files() -> bool:
    """Whether files are not compared with their digests."""
    return _trusts.get()


def refuse_changed_file(folder: Path, name: str, sha256: str) -> None:
    """Compares a file of an artifact with its digest.

    Raises:
        UserError: It differs, as in `refuse_changed`.
    """
    if trusts_files():
        return
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
            f"Corrections of pairs belong into a file named by `review` (docs/settings.md). {again}"
        )
    raise UserError(f"{path} is damaged: its content differs from the digest in {MANIFEST}.\n{again}")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def as_json(value: object) -> str:
    """As the files of a run folder have it."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def read_object(path: Path, kind: type[BaseModel]) -> dict[str, Any] | None:
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
