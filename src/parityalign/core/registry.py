"""Finds a part by its file name, or by the entry point that another package offers; there is no table to edit.

A part is a module NAME.py in one of the packages of `ROOMS` (names that begin with an underscore are helpers, not
parts), or an entry point NAME in the group `parityalign.ROOM`. Nothing is imported before it is asked for.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from parityalign.core.errors import UserError, missing_package


@runtime_checkable
class Checked(Protocol):
    """What a part may have as well: it says itself whether it can be used."""

    def lacking(self) -> str:
        """What keeps the part from being used, in words; empty: nothing."""


T = TypeVar("T")

_PACKAGE = Path(__file__).parent.parent
_BROKEN = (ImportError, AttributeError, NameError, SyntaxError, TypeError, ValueError, UserError)
"""What goes wrong while the module of a guest is imported, and is told in words instead of a traceback."""


class Room(NamedTuple):
    """A kind of part."""

    package: str
    """Where the parts lie that come with parityalign; empty: none do."""
    word: str
    """What a part is called in messages."""
    defines: str = ""
    """The name under which a part's module defines what `load_part` gives."""


ROOMS: Mapping[str, Room] = MappingProxyType(
    {
        "skills": Room("tasks.skills", "skill", "SKILL"),
        "benchmarks": Room("tasks.benchmarks", "benchmark", "BENCHMARK"),
        "metrics": Room("metrics", "metric", "METRIC"),
        "models": Room("models.backends", "kind of model"),
        "objectives": Room("training.losses", "objective"),
        "exports": Room("export.formats", "export format"),
        "sources": Room("data.sources", "kind of image source"),
        "stages": Room("", "stage of another package", "STAGE"),
        "filters": Room("", "filter of pairs", "FILTER"),
    }
)


def part_names(room: str) -> list[str]:
    """The names of all parts of a room, sorted; imports none of them."""
    foreign = (entry.name for entry in entry_points(group=f"parityalign.{room}"))
    return sorted({*_own(room), *foreign})


def has_part(room: str, name: str) -> bool:
    """Whether a room has the part `name`; imports nothing."""
    return name in _own(room) or bool(entry_points(group=f"parityalign.{room}", name=name))


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
        UserError: There is no such part, a package that it needs is not installed, or it is a guest that cannot be
            imported.
    """
    if not has_part(room, name):
        raise UserError(_unknown(room, name))
    entry = _entry(room, name)
    try:
        return importlib.import_module(entry.module if entry else f"parityalign.{ROOMS[room].package}.{name}")
    except _BROKEN as problem:
        package = (problem.name or "").partition(".")[0] if isinstance(problem, ModuleNotFoundError) else ""
        if package not in ("", "parityalign"):
            raise missing_package(f"the {ROOMS[room].word} {name!r}", package, package) from problem
        if entry is None:
            raise
        raise _unusable(room, name, f"cannot be imported: {type(problem).__name__}: {problem}") from problem


def load_part(room: str, name: str, kind: type[T]) -> T:
    """What the module of a part defines.

    Raises:
        UserError: There is no such part, or its module defines something else or something that cannot be used; the
            message names the package that it comes from and what was expected.
    """
    expected = ROOMS[room].defines
    found = getattr(find_part(room, name), expected, None)
    if not isinstance(found, kind):
        instead = "does not" if found is None else f"defines it as {found!r}"
        raise _unusable(room, name, f"has to define {expected}, a parityalign.core.{kind.__name__}, and {instead}")
    lacking = found.lacking() if isinstance(found, Checked) else ""
    if lacking:
        raise _unusable(room, name, f"cannot be used: {lacking}")
    return found


def _unknown(room: str, name: str) -> str:
    return f"there is no {ROOMS[room].word} {name!r}. {did_you_mean(name, part_names(room))}"


def _unusable(room: str, name: str, why: str) -> UserError:
    entry = _entry(room, name)
    module = entry.module if entry else f"parityalign.{ROOMS[room].package}.{name}"
    package = f"package {entry.dist.name!r}" if entry and entry.dist else "package 'parityalign'"
    return UserError(f"the {ROOMS[room].word} {name!r} of the {package} (module {module}) {why}")


def _entry(room: str, name: str) -> EntryPoint | None:
    """The entry point of a guest; None of a part of our own."""
    if name in _own(room):
        return None
    return next(iter(entry_points(group=f"parityalign.{room}", name=name)), None)


def _own(room: str) -> set[str]:
    if not ROOMS[room].package:
        return set()
    modules = pkgutil.iter_modules([str(_PACKAGE / ROOMS[room].package.replace(".", "/"))])
    return {module.name for module in modules if not (module.name.startswith("_") or module.ispkg)}
