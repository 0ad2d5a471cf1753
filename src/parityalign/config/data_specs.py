"""Specs of image sources: KIND:LOCATION, or a path whose suffix gives the kind.

A folder is read as `folder`, `list.txt` as `txt`, `shards/*.tar` as `tar`, `hf:OWNER/NAME` as `hf`: kinds are the files
in `data/sources/`, and those of other packages.
"""

import os
from collections.abc import Callable
from pathlib import Path

from parityalign.config.model_specs import is_path
from parityalign.core import SourceKind, did_you_mean, files_below, files_named, has_part, load_part, part_names

_FOLDER, _HUB = "folder", "hf"
_ROOM = "sources"


def full_source(spec: str, folder: Path) -> str:
    """The same source with a full path, if it has one; relative ones are relative to `folder`."""
    return _with_location(spec, lambda place: os.path.abspath(folder / Path(place).expanduser()), folder)


def relative_source(spec: str, folder: Path) -> str:
    """The same source with its path, if it has one, relative to the folder."""
    return _with_location(spec, lambda place: os.path.relpath(place, folder), folder)


def folder_of(spec: str) -> Path | None:
    """The folder of a `folder` source; None for other kinds."""
    kind, location = split_source(spec)
    return Path(location) if kind == _FOLDER else None


def places_of(spec: str) -> list[Path]:
    """The local files and folders that a source (with full path) names; empty for a name on the hub."""
    kind, location = split_source(spec)
    if _by_name(kind):
        place = divided(location)[0]
        return [Path(place).expanduser()] if is_path(place) else []
    return [Path(location)] if kind == _FOLDER else files_named(location)


def problem_of(spec: str) -> str | None:
    """What is wrong with a source (with full path), in words; opens nothing."""
    kind, location = split_source(spec)
    path = Path(location)
    if _is_unknown_kind(spec):
        return f"is {spec!r}, but there is no kind of image source {spec.partition(':')[0]!r}. {_near(spec)}"
    if not location:
        return f"is {spec!r}, which does not say where the images are"
    if _by_name(kind):
        return None
    if path.is_dir() if kind == _FOLDER else any(map(Path.is_file, files_named(location))):
        return None
    if not path.exists():
        return f"is {location}, which does not exist"
    if kind == _FOLDER:
        return f"is {location}, which is not a folder, and its suffix is not one of {_endings()}"
    return f"is {location}, a folder; {kind!r} needs a file, or a pattern such as {path / f'*.{kind}'}"


def split_source(spec: str) -> tuple[str, str]:
    """A source's (kind, location)."""
    kind, colon, location = spec.partition(":")
    if colon and has_part(_ROOM, kind):
        return kind, location
    path = Path(spec)
    ending = path.suffix.lower().removeprefix(".")
    return (ending if ending and has_part(_ROOM, ending) and not path.is_dir() else _FOLDER), spec


def _with_location(spec: str, change: Callable[[str], str], folder: Path) -> str:
    """The source with its location changed where that is a path; `hf:OWNER/NAME` has none, `hf:./folder` has."""
    kind, colon, location = spec.partition(":")
    if not (colon and has_part(_ROOM, kind)):
        return spec if _is_unknown_kind(spec) else change(spec)
    if not location:
        return spec
    if _by_name(kind) and not location.startswith((".", "/", "~")) and not (folder / location).exists():
        return spec
    place = change(location)
    return f"{kind}:{place if place.startswith(('.', '/')) else f'./{place}'}"


def _by_name(kind: str) -> bool:
    return load_part(_ROOM, kind, SourceKind).by_name


def _is_unknown_kind(spec: str) -> bool:
    kind, colon, _ = spec.partition(":")
    return bool(colon) and kind.isalnum() and not has_part(_ROOM, kind)


def _near(spec: str) -> str:
    return did_you_mean(spec.partition(":")[0], part_names(_ROOM))


def _endings() -> str:
    return ", ".join(f".{name}" for name in part_names(_ROOM) if name not in (_FOLDER, _HUB))


PREFIX = "hf:"
"""Prefix of the spec of a data set: `hf:OWNER/NAME`, `hf:OWNER/NAME:SPLIT` or `hf:./folder`."""


SAVED = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` writes into a folder."""


def is_table(path: Path) -> bool:
    """Whether a file or folder is a data set: Parquet files, or written by `save_to_disk`."""
    if path.is_file():
        return path.suffix == ".parquet"
    return any((path / name).is_file() for name in SAVED) or any(
        file.suffix == ".parquet" for file in files_below(path)
    )


def divided(name: str) -> tuple[str, str | None]:
    """The data set, and the split after it if there is one."""
    place, colon, split = name.rpartition(":")
    return (place, split) if colon and not Path(name).exists() else (name, None)


def is_own(test: str) -> bool:
    """Whether a test split is the user's own single file rather than a benchmark's files."""
    return Path(test).suffix in (".jsonl", ".json")
