"""The rules of the house, read off the source: who may import whom, who may print, what must not be loaded."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "parityalign"
ROOMS = {"stages", "tasks", "exports", "models", "objectives", "training", "report", "embedded", "sources", "planning"}
JOINERS = {
    *(
        "cli",
        "pipeline",
        "controls",
        "exporting",
        "joinery",
        "levelling",
        "objective",
        "sharing",
        "checkup",
        "showing",
        "starting",
    ),
    "__main__",
}
"""What may import any room; every other module at the top of the package is ground."""
FINDERS = JOINERS | {"plugins"}
"""What may import the house's own modules inside a function."""
HEAVY = {"torch", "transformers", "peft", "accelerate"}
MAY_BE_HEAVY = {
    "opening",
    "processors",
    "machine",
    "doctor",
    "footprint",
    "attending",
    "planning.sizing",
    "planning.measuring",
    "models.hf",
    "models._batches",
    "models._decoding",
    "models._generate",
    "models._observing",
}
"""What may import the heavy packages, besides the rooms that train."""
LIGHT_IMPORTS = """
import sys
before = set(sys.modules)
import parityalign.cli
heavy = {"torch", "transformers", "peft", "accelerate", "scipy", "matplotlib"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """`report.page` for PACKAGE/report/page.py, `report` for PACKAGE/report/__init__.py, `` for the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Full names of what the import statements among these nodes import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(path: Path) -> set[str]:
    """The modules of this package that a module imports, by their names below the package."""
    known = {dotted(module) for module in modules()}
    found = set()
    for name in imported(ast.walk(tree(path))):
        below = name.removeprefix("parityalign.")
        if below != name:
            found.add(below if below in known else below.rpartition(".")[0])
    return found - {""}


def room(module: str) -> str:
    """The room that a module belongs to; `` for the ground."""
    first = module.partition(".")[0]
    return first if first in ROOMS else ""


def functions(path: Path) -> list[ast.AST]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def calls(path: Path, name: str) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def each_module(*, but: set[str] = frozenset()) -> pytest.MarkDecorator:
    chosen = [path for path in modules() if dotted(path) not in but]
    return pytest.mark.parametrize("path", chosen, ids=lambda path: dotted(path) or "parityalign")


@each_module(but=JOINERS)
def test_rooms_import_ground_and_never_each_other_and_ground_imports_only_ground(path):
    here = room(dotted(path))
    foreign = {name for name in own_imports(path) if room(name) not in ("", here) or name in JOINERS}
    assert not foreign, f"{dotted(path)} may not import {foreign}"


def test_no_imports_go_in_a_circle():
    graph = {dotted(path): own_imports(path) - {dotted(path)} for path in modules()}
    while free := {module for module, needs in graph.items() if not needs & graph.keys()}:
        graph = {module: needs for module, needs in graph.items() if module not in free}
    assert not graph, f"these modules import each other: {sorted(graph)}"


@each_module(but=FINDERS)
def test_own_modules_are_imported_at_the_top(path):
    for function in functions(path):
        own = {name for name in imported(ast.walk(function)) if name.startswith("parityalign")}
        assert not own, f"{function.name} imports {own}"


@each_module()
def test_heavy_packages_stay_in_the_rooms_that_need_them(path):
    allowed = room(dotted(path)) in ("objectives", "training", "embedded") or dotted(path) in MAY_BE_HEAVY
    heavy = {name.partition(".")[0] for name in imported(ast.walk(tree(path)))} & HEAVY
    assert allowed or not heavy, f"{dotted(path)} imports {heavy}"


@each_module(but={"cli"})
def test_only_the_command_line_prints_or_exits(path):
    assert not calls(path, "print")
    assert not calls(path, "exit")
    assert "sys.exit" not in path.read_text(encoding="utf-8")


@each_module()
def test_no_assert_and_no_broad_except(path):
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            names = {child.id for child in ast.walk(node.type or node) if isinstance(child, ast.Name)}
            assert node.type is not None, f"bare except in line {node.lineno}"
            assert not names & {"Exception", "BaseException"}, f"broad except in line {node.lineno}"


@each_module()
def test_every_module_and_public_name_is_described(path):
    described = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    assert ast.get_docstring(tree(path)), "the module has no docstring"
    for node in tree(path).body:
        if isinstance(node, described) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_the_pipeline_fits_on_one_screen():
    assert len((PACKAGE / "pipeline.py").read_text().splitlines()) <= 60


def test_a_benchmark_is_one_short_file():
    for path in (PACKAGE / "tasks").glob("[!_]*.py"):
        assert len(path.read_text().splitlines()) <= 150, path.name


def test_importing_the_command_line_loads_nothing_heavy():
    subprocess.run([sys.executable, "-c", LIGHT_IMPORTS], check=True)


def test_importing_the_command_line_is_quick():
    # Processor time, and the best of five: the machine may be busy, the code is what is measured. A slow machine is
    # slow with the libraries alone, too.
    def best(modules: str) -> float:
        timed = f"import time; t = time.process_time(); import {modules}; print(time.process_time() - t)"
        return min(float(subprocess.check_output([sys.executable, "-c", timed])) for _ in range(5))

    assert best("parityalign.cli") < max(0.3, 1.5 * best("typer.main, rich.table, pydantic, yaml"))


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["identify", "--help"]])
def test_help_loads_no_torch(arguments):
    command = [sys.executable, "-X", "importtime", "-m", "parityalign", *arguments]
    helped = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "Usage" in helped.stdout
    loaded = {line.rpartition("|")[2].strip() for line in helped.stderr.splitlines() if "|" in line}
    assert not loaded & HEAVY
