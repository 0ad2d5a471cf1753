"""Finds a plug-in by its file name, or by the entry point of another package; there is no table to edit.

A plug-in ("part") is a module NAME.py in one of the packages of `GROUPS` (names that begin with an underscore are
helpers), or an entry point NAME in the group `parityalign.GROUP`. Nothing is imported before it is used.
"""

import ast
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, EntryPoints, entry_points
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


class Group(NamedTuple):
    """A kind of plug-in."""

    package: str
    """The package of the plug-ins that come with parityalign; empty: none do."""
    word: str
    """What such a plug-in is called in messages."""
    defines: str = ""
    """The name under which its module defines what `load_part` returns."""


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "skills": Group("tasks.skills", "skill", "SKILL"),
        "benchmarks": Group("tasks.benchmarks", "benchmark", "BENCHMARK"),
        "metrics": Group("metrics", "metric", "METRIC"),
        "backends": Group("models.backends", "kind of model", "BACKEND"),
        "losses": Group("training.losses", "term of the loss", "losses"),
        "exports": Group("export.formats", "export format", "EXPORT"),
        "sources": Group("data.sources", "kind of image source", "SOURCE"),
        "stages": Group("", "stage of another package", "STAGE"),
        "filters": Group("stages.filters", "filter of pairs", "FILTER"),
    }
)


def part_names(group: str) -> list[str]:
    """The names of all plug-ins of a group, sorted; imports none of them."""
    return sorted({*_own(group), *_foreign(group).names})


def has_part(group: str, name: str) -> bool:
    """Whether a group has the plug-in `name`; imports nothing."""
    return name in _own(group) or name in _foreign(group).names


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`Did you mean ...? Known: ...` for an unknown name, as the end of an error message."""
    close = get_close_matches(name, known, n=3)
    guess = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{guess}Known: {', '.join(known) or 'none'}."


def known_part(group: str) -> Callable[[str], str]:
    """A validator for settings: the group has a plug-in of the given name, else it raises ValueError."""

    def check(name: str) -> str:
        if not has_part(group, name):
            raise ValueError(_unknown(group, name))
        return name

    return check


def find_part(group: str, name: str) -> ModuleType:
    """Imports the plug-in `name` of a group.

    Raises:
        UserError: There is no such plug-in, a package that it needs is not installed, or another package's cannot be
            imported.
    """
    if not has_part(group, name):
        raise UserError(_unknown(group, name))
    entry = _entry(group, name)
    try:
        return importlib.import_module(_module_of(group, name))
    except _BROKEN as problem:
        package = (problem.name or "").partition(".")[0] if isinstance(problem, ModuleNotFoundError) else ""
        if package not in ("", "parityalign"):
            raise missing_package(f"the {GROUPS[group].word} {name!r}", package, package) from problem
        if entry is None:
            raise
        raise _unusable(group, name, f"cannot be imported: {type(problem).__name__}: {problem}") from problem


def load_part(group: str, name: str, kind: type[T]) -> T:
    """The object that the module of a plug-in defines.

    Raises:
        UserError: There is no such plug-in, or its module defines something else or something that cannot be used; the
            message names its package and what was expected.
    """
    expected = GROUPS[group].defines
    found = getattr(find_part(group, name), expected, None)
    if not isinstance(found, kind):
        instead = "does not" if found is None else f"defines it as {found!r}"
        raise _unusable(group, name, f"has to define {expected}, a {_public_name(kind)}, and {instead}")
    lacking = found.lacking() if isinstance(found, Checked) else ""
    if lacking:
        raise _unusable(group, name, f"cannot be used: {lacking}")
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
    except (ValueError, NameError):  # written in C, or annotated with what only type checkers import
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as problem:
        taken = ", ".join(signature.parameters)
        return f"it defines {name}({taken}), but it is called as {name}({called}): {problem}"
    return ""


def declared(group: str, name: str, attribute: str) -> object:
    """A literal that the module of a plug-in defines, read from its source: nothing is imported.

    Args:
        group: The kind of plug-in.
        name: An existing plug-in.
        attribute: A name that the module may assign a literal or `frozenset({...})`; the result is None if it does not.

    Raises:
        UserError: The module has no source, or assigns something that is not a literal.
    """
    statements = [each for each in _source(group, name).body if attribute in _bound(each)]
    if not statements:
        return None
    try:
        return _literal(statements[-1])
    except (ValueError, TypeError) as problem:
        said = f"has {attribute} on line {statements[-1].lineno}, but that is not a literal, such as {{'a', 'b'}}"
        raise UserError(f"{described(group, name)} {said}: it is read without importing the module.") from problem


def described(group: str, name: str) -> str:
    """A plug-in in a message: its kind, name, module and package."""
    entry = _entry(group, name)
    package = entry.dist.name if entry and entry.dist else "parityalign"
    return f"the {GROUPS[group].word} {name!r} (module {_module_of(group, name)} of the package {package})"


def _entry(group: str, name: str) -> EntryPoint | None:
    """The entry point of another package under the name; None for a plug-in that comes with parityalign."""
    return None if name in _own(group) else next(iter(_foreign(group).select(name=name)), None)


def _module_of(group: str, name: str) -> str:
    entry = _entry(group, name)
    return entry.module if entry else f"parityalign.{GROUPS[group].package}.{name}"


def _source(group: str, name: str) -> ast.Module:
    found = _spec(_module_of(group, name))
    if found is None or not found.has_location or not str(found.origin).endswith(".py"):
        raise UserError(f"{described(group, name)} has no source file that could be read. Install its package again.")
    try:
        return ast.parse(Path(str(found.origin)).read_bytes())
    except (OSError, SyntaxError, ValueError) as problem:
        raise UserError(f"{described(group, name)} cannot be read: {problem}") from problem


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


def _unknown(group: str, name: str) -> str:
    return f"there is no {GROUPS[group].word} {name!r}. {did_you_mean(name, part_names(group))}"


def _public_name(kind: type) -> str:
    """Where another package finds a class, such as `parityalign.core.Skill`; for what Python has, its name."""
    package, *inner = kind.__module__.split(".")
    return f"{package}.{inner[0]}.{kind.__name__}" if package == "parityalign" else kind.__name__


def _unusable(group: str, name: str, why: str) -> UserError:
    return UserError(f"{described(group, name)} {why}")


@cache
def _own(group: str) -> frozenset[str]:
    """The names of this package's parts; looked for once, as they are asked for at every step."""
    if not GROUPS[group].package:
        return frozenset()
    modules = pkgutil.iter_modules([str(_PACKAGE / GROUPS[group].package.replace(".", "/"))])
    return frozenset(module.name for module in modules if not (module.name.startswith("_") or module.ispkg))


def _foreign(group: str) -> EntryPoints:
    """What other packages offer; looked for again where one may have been installed since."""
    places = tuple(place or os.curdir for place in sys.path)
    return _entry_points(group, places, tuple(map(_changed_at, places)))


def _changed_at(place: str) -> int:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:  # nothing can be imported from there
        return 0


@lru_cache
def _entry_points(group: str, _places: tuple[str, ...], _changed: tuple[int, ...]) -> EntryPoints:
    """Reading every installed package's takes some 10 ms."""
    return entry_points(group=f"parityalign.{group}")
