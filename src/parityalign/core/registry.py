"""Finds a plug-in by its file name, or by the entry point of another package; there is no table to edit.

A plug-in ("part") is a module NAME.py in one of the packages of `ROOMS` (names that begin with an underscore are
helpers), or an entry point NAME in the group `parityalign.ROOM`. Nothing is imported before it is used.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from parityalign.core.errors import UserError, missing_package


@runtime_checkable
class Checked(Protocol):
    """What a plug-in may also have: it says whether it can be used."""

    def lacking(self) -> str:
        """What keeps the part from being used, in words; empty: nothing."""


T = TypeVar("T")

_PACKAGE = Path(__file__).parent.parent
_BROKEN = (ImportError, AttributeError, NameError, SyntaxError, TypeError, ValueError, UserError)
"""Errors of importing another package's module that are reported as a message, not as a traceback."""


class Room(NamedTuple):
    """A kind of plug-in."""

    package: str
    """The package of the plug-ins that come with parityalign; empty: none do."""
    word: str
    """What such a plug-in is called in messages."""
    defines: str = ""
    """The name under which its module defines what `load_part` returns."""


ROOMS: Mapping[str, Room] = MappingProxyType(
    {
        "skills": Room("tasks.skills", "skill", "SKILL"),
        "benchmarks": Room("tasks.benchmarks", "benchmark", "BENCHMARK"),
        "metrics": Room("metrics", "metric", "METRIC"),
        "backends": Room("models.backends", "kind of model", "BACKEND"),
        "losses": Room("training.losses", "term of the loss", "losses"),
        "exports": Room("export.formats", "export format", "EXPORT"),
        "sources": Room("data.sources", "kind of image source", "SOURCE"),
        "stages": Room("", "stage of another package", "STAGE"),
        "filters": Room("", "filter of pairs", "FILTER"),
    }
)


def part_names(room: str) -> list[str]:
    """The names of all plug-ins of a room, sorted; imports none of them."""
    foreign = (entry.name for entry in entry_points(group=f"parityalign.{room}"))
    return sorted({*_own(room), *foreign})


def has_part(room: str, name: str) -> bool:
    """Whether a room has the plug-in `name`; imports nothing."""
    return name in _own(room) or bool(entry_points(group=f"parityalign.{room}", name=name))


def did_you_mean(name: str, known: list[str]) -> str:
    """`Did you mean ...? Known: ...` for an unknown name, as the end of an error message."""
    close = get_close_matches(name, known, n=3)
    guess = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{guess}Known: {', '.join(known) or 'none'}."


def known_part(room: str) -> Callable[[str], str]:
    """A validator for settings: the room has a plug-in of the given name, else it raises ValueError."""

    def check(name: str) -> str:
        if not has_part(room, name):
            raise ValueError(_unknown(room, name))
        return name

    return check


def find_part(room: str, name: str) -> ModuleType:
    """Imports the plug-in `name` of a room.

    Raises:
        UserError: There is no such plug-in, a package that it needs is not installed, or another package's cannot be
            imported.
    """
    if not has_part(room, name):
        raise UserError(_unknown(room, name))
    entry = _entry(room, name)
    try:
        return importlib.import_module(_module_of(room, name))
    except _BROKEN as problem:
        package = (problem.name or "").partition(".")[0] if isinstance(problem, ModuleNotFoundError) else ""
        if package not in ("", "parityalign"):
            raise missing_package(f"the {ROOMS[room].word} {name!r}", package, package) from problem
        if entry is None:
            raise
        raise _unusable(room, name, f"cannot be imported: {type(problem).__name__}: {problem}") from problem


def load_part(room: str, name: str, kind: type[T]) -> T:
    """The object that the module of a plug-in defines.

    Raises:
        UserError: There is no such plug-in, or its module defines something else or something that cannot be used; the
            message names its package and what was expected.
    """
    expected = ROOMS[room].defines
    found = getattr(find_part(room, name), expected, None)
    if not isinstance(found, kind):
        instead = "does not" if found is None else f"defines it as {found!r}"
        raise _unusable(room, name, f"has to define {expected}, a {_public_name(kind)}, and {instead}")
    lacking = found.lacking() if isinstance(found, Checked) else ""
    if lacking:
        raise _unusable(room, name, f"cannot be used: {lacking}")
    return found


def fault_of_function(name: str, found: object, *arguments: str) -> str:
    """What is wrong with what a part gives as a function, in words; empty: nothing.

    Args:
        name: What the part calls it.
        found: What it gives.
        arguments: What it is called with, in their order.
    """
    called = ", ".join(arguments)
    if not callable(found):
        return f"{name} has to be a function ({called}), and is {found!r}"
    try:
        signature = inspect.signature(found)
    except ValueError:  # of some functions written in C nobody knows what they take
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as problem:
        taken = ", ".join(signature.parameters)
        return f"it defines {name}({taken}), but it is called as {name}({called}): {problem}"
    return ""


def declared(room: str, name: str, attribute: str) -> object:
    """A literal that the module of a plug-in defines, read from its source: nothing is imported.

    Args:
        room: The kind of plug-in.
        name: An existing plug-in.
        attribute: A name that the module may assign a literal or `frozenset({...})`; the result is None if it does not.

    Raises:
        UserError: The module has no source, or assigns something that is not a literal.
    """
    statements = [each for each in _source(room, name).body if attribute in _bound(each)]
    if not statements:
        return None
    try:
        return _literal(statements[-1])
    except (ValueError, TypeError) as problem:
        said = f"has {attribute} on line {statements[-1].lineno}, but that is not a literal, such as {{'a', 'b'}}"
        raise UserError(f"{described(room, name)} {said}: it is read without importing the module.") from problem


def described(room: str, name: str) -> str:
    """A plug-in in a message: its kind, name, module and package."""
    entry = _entry(room, name)
    package = entry.dist.name if entry and entry.dist else "parityalign"
    return f"the {ROOMS[room].word} {name!r} (module {_module_of(room, name)} of the package {package})"


def _entry(room: str, name: str) -> EntryPoint | None:
    """The entry point of another package under the name; None for a plug-in that comes with parityalign."""
    return None if name in _own(room) else next(iter(entry_points(group=f"parityalign.{room}", name=name)), None)


def _module_of(room: str, name: str) -> str:
    entry = _entry(room, name)
    return entry.module if entry else f"parityalign.{ROOMS[room].package}.{name}"


def _source(room: str, name: str) -> ast.Module:
    found = _spec(_module_of(room, name))
    if found is None or not found.has_location or not str(found.origin).endswith(".py"):
        raise UserError(f"{described(room, name)} has no source file that could be read. Install its package again.")
    try:
        return ast.parse(Path(str(found.origin)).read_bytes())
    except (OSError, SyntaxError, ValueError) as problem:
        raise UserError(f"{described(room, name)} cannot be read: {problem}") from problem


def _spec(module: str) -> ModuleSpec | None:
    """The file of a module. `find_spec` imports the parent packages of its argument, so it gets the outermost only."""
    outermost, *inner = module.split(".")
    found = find_spec(outermost)
    for depth in range(len(inner)):
        if found is None:
            return None
        place = [*(found.submodule_search_locations or ())]
        found = PathFinder.find_spec(".".join([outermost, *inner[: depth + 1]]), place)
    return found


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a module-level statement assigns, functions and classes left out."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names = {each.id for each in ast.walk(statement) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    imported = (each for each in ast.walk(statement) if isinstance(each, ast.alias))
    return names | {each.asname or each.name for each in imported}


def _literal(statement: ast.stmt) -> object:
    """The value of a plain assignment; ValueError for another statement or a value that is not a literal."""
    match statement:
        case ast.Assign(targets=[ast.Name()], value=value) | ast.AnnAssign(value=ast.expr() as value):
            return _value(value)
    raise ValueError("not a plain assignment")


def _value(node: ast.expr) -> object:
    match node:
        case ast.Call(func=ast.Name(id="frozenset" | "set"), args=args, keywords=[]) if len(args) <= 1:
            found: object = ast.literal_eval(args[0]) if args else ()
            if isinstance(found, set | list | tuple):
                return frozenset(found)
            raise ValueError("not a collection")
    return ast.literal_eval(node)


def _unknown(room: str, name: str) -> str:
    return f"there is no {ROOMS[room].word} {name!r}. {did_you_mean(name, part_names(room))}"


def _public_name(kind: type) -> str:
    """Where another package finds a class, such as `parityalign.core.Skill`; for what Python has, its name."""
    package, *inner = kind.__module__.split(".")
    return f"{package}.{inner[0]}.{kind.__name__}" if package == "parityalign" else kind.__name__


def _unusable(room: str, name: str, why: str) -> UserError:
    return UserError(f"{described(room, name)} {why}")


def _own(room: str) -> set[str]:
    if not ROOMS[room].package:
        return set()
    modules = pkgutil.iter_modules([str(_PACKAGE / ROOMS[room].package.replace(".", "/"))])
    return {module.name for module in modules if not (module.name.startswith("_") or module.ispkg)}
