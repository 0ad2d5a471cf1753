"""The rules of the house, read off the source; lint does the rest (`make lint`)."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "parityalign"
PACKAGES = (
    "core",
    "metrics",
    "config",
    "data",
    "tasks",
    "models",
    "engines",
    "stages",
    "training",
    "report",
    "export",
    "planning",
    "pipeline",
    "demo",
    "viewer",
    "cli",
)
"""From the top: each imports only what stands above it."""
HEAVY = {"torch", "transformers", "peft", "accelerate", "bitsandbytes", "liger_kernel"}
ONE_SYSTEM = {"fcntl", "grp", "msvcrt", "pwd", "resource", "termios", "winreg"}
"""Modules that some systems do not have."""
LIGHT = """
import sys
import {module}
heavy = {{"torch", "transformers", "peft", "accelerate", "scipy", "matplotlib"}} & set(sys.modules)
sys.exit(f"loaded {{heavy}}" if heavy else 0)
"""


BAD = """
import os, sys
from ..core import UserError

def shown(a):
    import parityalign.core
    try:
        assert a
        print(a)
    except Exception:
        return
    sys.exit(1)
"""
FORBIDDEN = {"ANN001", "ANN201", "BLE001", "D100", "D103", "PLC0415", "S101", "T201", "TID251", "TID252"}
"""What ruff has against `BAD`, beside its looks."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module}.{alias.name}") for alias in node.names)


def broken(path: Path) -> Iterator[str]:
    """What in a module's imports breaks the rule."""
    here = path.relative_to(PACKAGE).parts[0]
    for line, name in imports(path):
        where, (first, *rest) = f"{path.relative_to(PACKAGE)}:{line}", name.split(".")
        if first == "parityalign" and rest and rest[0] in PACKAGES and rest[0] != here:
            if here in PACKAGES and PACKAGES.index(rest[0]) > PACKAGES.index(here):
                yield f"{where}: {here} stands above {rest[0]}"
            if (here, rest[0]) in (("stages", "models"), ("stages", "training")):
                yield f"{where}: stages know neither models nor training"
            if len(rest) > 2:
                yield f"{where}: {name} goes past the face of {rest[0]}"
        if first in HEAVY and here not in ("models", "training", "planning", "demo"):
            yield f"{where}: {here} may not import {first}"


def test_a_package_imports_only_packages_above_it_through_their_faces():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} == set(PACKAGES)
    assert not [problem for path in modules() for problem in broken(path)]


def test_nothing_is_imported_that_only_some_systems_have():
    assert not [(path, line) for path in modules() for line, name in imports(path) if name.split(".")[0] in ONE_SYSTEM]


@pytest.mark.slow
def test_functions_import_nothing_of_ours():
    inner = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in modules()
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(name.partition(".")[0] == "parityalign" for name in named(node))
    ]
    assert not inner


def named(node: ast.Import | ast.ImportFrom) -> list[str]:
    """What a statement imports from; a relative import is ours."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return ["parityalign" if node.level else str(node.module)]


def test_the_top_level_holds_packages_alone():
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "py.typed"}


def tool(name: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return subprocess.run([sys.executable, "-m", name, *arguments], cwd=ROOT, capture_output=True, text=True, **options)


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=["rules", "looks"])
def test_lint_finds_nothing(arguments):
    told = tool("ruff", *arguments, "src", "tests", "benchmarks", "tools")
    assert told.returncode == 0, told.stdout


def test_lint_has_its_rules_on_in_the_package():
    arguments = ["check", "--output-format", "concise", "--stdin-filename", str(PACKAGE / "stages" / "bad.py"), "-"]
    assert set(re.findall(r"^\S+: ([A-Z]+\d+)", tool("ruff", *arguments, input=BAD).stdout, re.M)) >= FORBIDDEN


@pytest.mark.slow
def test_types_are_right():
    told = tool("mypy")
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("face", sorted(PACKAGE.glob("*/__init__.pyi")), ids=lambda path: path.parent.name)
def test_a_name_in_a_face_is_not_that_of_a_module_beside_it(face):
    """Which of the two is found hangs on the version of lazy_loader; a metric's module is its metric's name."""
    names = {line.split(" as ")[-1] for line in face.read_text().splitlines()}
    modules = {path.stem for path in face.parent.iterdir()}
    assert face.parent.name == "metrics" or not names & modules


@pytest.mark.parametrize("package", PACKAGES)
def test_a_face_names_only_what_is_there(package):
    face = import_module(f"parityalign.{package}")
    assert all(hasattr(face, name) for name in getattr(face, "__all__", []))


@pytest.mark.parametrize("module", ["parityalign", "parityalign.cli.app"])
def test_nothing_heavy_is_loaded_by_importing(module):
    subprocess.run([sys.executable, "-c", LIGHT.format(module=module)], check=True)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["identify", "--help"]])
def test_help_loads_no_torch(arguments):
    command = [sys.executable, "-X", "importtime", "-m", "parityalign", *arguments]
    helped = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "Usage" in helped.stdout
    loaded = {line.rpartition("|")[2].strip() for line in helped.stderr.splitlines() if "|" in line}
    assert not loaded & HEAVY
