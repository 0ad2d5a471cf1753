"""Finds a part by its file name, or by the entry point that another package offers; there is no table to edit.

A part is a module NAME.py in one of the packages of `ROOMS` (names that begin with an underscore are helpers, not
parts), or an entry point NAME in the group `parityalign.ROOM`. Nothing is imported before it is asked for.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple, TypeVar

from parityalign.core.errors import UserError, missing_package

T = TypeVar("T")

_PACKAGE = Path(__file__).parent.parent


class Room(NamedTuple):
    """A kind of part."""

    package: str
    """Where the parts lie that come with parityalign."""
    word: str
    """What a part is called in messages."""
    defines: str = ""
    """The name under which a part's module defines what `load_part` gives."""


ROOMS: Mapping[str, Room] = MappingProxyType(
    {
        "tasks": Room("tasks", "task", "TASK"),
        "metrics": Room("metrics", "metric", "METRIC"),
        "backends": Room("models.backends", "kind of model", "BACKEND"),
        "objectives": Room("training.losses", "objective"),
        "exports": Room("export.formats", "export format"),
        "sources": Room("data.sources", "kind of image source"),
    }
)


def part_names(room: str) -> list[str]:
    """The names of all parts of a room, sorted; imports none of them."""
    foreign = (entry.name for entry in entry_points(group=f"parityalign.{room}"))
    return sorted({*_own(room), *foreign})


def has_part(room: str, name: str) -> bool:
    """Whether a room has the part `name`; imports nothing."""
    return name in _own(room) or bool(entry_points(group=f"parityalign.{room}", name=name))


def offered_by(room: str, name: str) -> str:
    """The package that offers the part `name` of a room."""
    if name in _own(room):
        return "parityalign"
    (entry, *_) = entry_points(group=f"parityalign.{room}", name=name)
    return entry.dist.name if entry.dist else entry.module


def did_you_mean(name: str, known: list[str]) -> str:
    """`Did you mean ...? Known: ...` for an unknown name, as the end of an error message."""
    close = get_close_matches(name, known, n=3)
    guess = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{guess}Known: {', '.join(known) or 'none'}."


def known_part(room: str) -> Callable[[str], str]:
    """A check, for settings, that a room has a part of the given name; it raises ValueError."""

    def check(name: str) -> str:
        if not has_part(room, name):
            raise ValueError(_unknown(room, name))
        return name

    return check


def find_part(room: str, name: str) -> ModuleType:
    """Imports the part `name` of a room.

    Raises:
        UserError: There is no such part, or a package that it needs is not installed.
    """
    if not has_part(room, name):
        raise UserError(_unknown(room, name))
    try:
        if name in _own(room):
            return importlib.import_module(f"parityalign.{ROOMS[room].package}.{name}")
        (entry, *_) = entry_points(group=f"parityalign.{room}", name=name)
        return importlib.import_module(entry.module)
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        if package in ("", "parityalign"):
            raise
        raise missing_package(f"the {ROOMS[room].word} {name!r}", package, package) from problem


def load_part(room: str, name: str, kind: type[T]) -> T:
    """What the module of a part defines.

    Raises:
        UserError: There is no such part, or its module defines something else.
    """
    module, expected = find_part(room, name), ROOMS[room].defines
    found = getattr(module, expected, None)
    if not isinstance(found, kind):
        raise UserError(
            f"the module {module.__name__} of the {ROOMS[room].word} {name!r} does not define {expected}, "
            f"a {kind.__name__}"
        )
    return found


def _unknown(room: str, name: str) -> str:
    return f"there is no {ROOMS[room].word} {name!r}. {did_you_mean(name, part_names(room))}"


def _own(room: str) -> set[str]:
    modules = pkgutil.iter_modules([str(_PACKAGE / ROOMS[room].package.replace(".", "/"))])
    return {module.name for module in modules if not (module.name.startswith("_") or module.ispkg)}
