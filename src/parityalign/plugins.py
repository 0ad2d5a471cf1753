"""Finds a part by its file name, or by the entry point that another package offers; no table to edit.

A part is a module `parityalign/ROOM/NAME.py` (names that begin with an underscore are helpers, not parts)
or an entry point NAME in the group `parityalign.ROOM`. Nothing is imported before it is asked for.
"""

import importlib
import json
import pkgutil
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from parityalign.disk import file_digest, folder_digest
from parityalign.errors import UserError, missing_package
from parityalign.loading import LoadingSettings
from parityalign.records import content_id
from parityalign.seams import Model, Task

_PACKAGE = Path(__file__).parent
EMBEDDED_MODELS = _PACKAGE / "embedded" / "models"
"""The folder of the bundled models; `embedded:NAME` is `hf:` on the folder NAME in it."""

_SERVED = "http"
"""The kind of model that is named by a URL, `https` too."""

_WORDS = {
    "tasks": "task",
    "models": "kind of model",
    "objectives": "objective",
    "exports": "export format",
    "sources": "kind of image source",
}


def names(room: str) -> list[str]:
    """The names of all parts of a room, sorted; imports none of them."""
    foreign = (entry.name for entry in entry_points(group=f"parityalign.{room}"))
    return sorted({*_own(room), *foreign})


def has(room: str, name: str) -> bool:
    """Whether a room has the part `name`; imports nothing."""
    return name in _own(room) or bool(entry_points(group=f"parityalign.{room}", name=name))


def near(name: str, known: list[str]) -> str:
    """`Did you mean ...? Known: ...` for an unknown name, as the end of an error message."""
    close = get_close_matches(name, known, n=3)
    guess = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{guess}Known: {', '.join(known) or 'none'}."


def known(room: str) -> Callable[[str], str]:
    """A check, for settings, that a room has a part of the given name; it raises ValueError."""

    def check(name: str) -> str:
        if not has(room, name):
            raise ValueError(_unknown(room, name))
        return name

    return check


def find(room: str, name: str) -> ModuleType:
    """Imports the part `name` of a room.

    Raises:
        UserError: There is no such part, or a package that it needs is not installed.
    """
    if not has(room, name):
        raise UserError(_unknown(room, name))
    try:
        if name in _own(room):
            return importlib.import_module(f"parityalign.{room}.{name}")
        (entry, *_) = entry_points(group=f"parityalign.{room}", name=name)
        return importlib.import_module(entry.module)
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        if package in ("", "parityalign"):
            raise
        raise missing_package(f"the {_word(room)} {name!r}", package, package) from problem


def load_task(name: str) -> Task:
    """The task of this name.

    Raises:
        UserError: There is no such task.
    """
    module = find("tasks", name)
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise UserError(f"the module {module.__name__} of the task {name!r} does not define TASK")
    return task


def is_served(spec: str) -> bool:
    """Whether a model lies behind a server: its spec is a URL."""
    return spec.startswith(("http://", "https://"))


def _check_address(spec: str) -> None:
    try:
        address = urlsplit(spec)
        found = bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        found = False
    if not found:
        raise UserError("a model's address names no server: write it like http://HOST:PORT/v1#NAME.")
    # Neither is shown: what stands there is likely to be a secret, and the address goes into files.
    if address.username or address.password or address.query:
        raise UserError(
            f"the address of a model at {address.hostname} holds a user name, password or query. Give the address "
            "alone; the key comes from an environment variable (server.key_variable)."
        )


def split_model(spec: str) -> tuple[str, str]:
    """A model's (kind, location), with `embedded:NAME` resolved to `hf` on the bundled folder; a URL is `http`.

    Raises:
        UserError: It is not KIND:LOCATION, the kind is unknown, or there is no such embedded model.
    """
    kind, _, location = spec.partition(":")
    if is_served(spec) or kind == _SERVED:
        _check_address(spec)
        return _SERVED, spec
    if not location:
        raise UserError(
            f"{spec!r} does not say where the model is: write KIND:LOCATION, "
            f"such as embedded:teacher or hf:./folder, or a server's address. Kinds: {', '.join(_kinds())}."
        )
    if kind != "embedded":
        if not has("models", kind):
            raise UserError(f"there is no kind of model {kind!r} (in {spec!r}). {near(kind, _kinds())}")
        return kind, location
    bundled = sorted(path.name for path in EMBEDDED_MODELS.glob("*") if path.is_dir())
    if location not in bundled:
        raise UserError(f"there is no embedded model {location!r}. {near(location, bundled)}")
    return "hf", str(EMBEDDED_MODELS / location)


def load_model(spec: str, loading: LoadingSettings | None = None) -> Model:
    """Loads the model that `spec` (KIND:LOCATION) names; this is where torch may come in.

    Args:
        spec: Where the model is.
        loading: How it is loaded; None: the kind's own way.

    Raises:
        UserError: There is no such model.
    """
    kind, location = split_model(spec)
    model: Model = find("models", kind).load(location, *(() if loading is None else (loading,)))
    return model


def fingerprint(spec: str, loading: LoadingSettings | None = None) -> str:
    """Changes whenever the model does, or how it is loaded as far as its answers hang on that; loads nothing.

    A hash of its file or folder, else of its name and, on the hub, its commit.
    """
    kind, location = split_model(spec)
    how = loading or LoadingSettings()
    parts = [json.dumps(numbers, sort_keys=True)] if kind == "hf" and (numbers := how.numbers()) else []
    path = Path(location)
    if path.is_dir():
        return content_id(kind, folder_digest(path), *parts)
    if path.is_file():
        return content_id(kind, file_digest(path), *parts)
    return content_id(kind, location, *([how.pinned] if kind == "hf" and how.pinned else []), *parts)


def _word(room: str) -> str:
    return _WORDS.get(room, f"part of {room}")


def _unknown(room: str, name: str) -> str:
    return f"there is no {_word(room)} {name!r}. {near(name, names(room))}"


def _own(room: str) -> set[str]:
    modules = pkgutil.iter_modules([str(_PACKAGE / room)])
    return {module.name for module in modules if not module.name.startswith("_")}


def _kinds() -> list[str]:
    return sorted([*names("models"), "embedded"])
