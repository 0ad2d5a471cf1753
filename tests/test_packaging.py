"""What is installed: packages asked for and pinned, fonts with licences, an index page without dead links."""

import ast
import re
import runpy
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMES_WITH = {"pyarrow": "datasets", "pydantic-core": "pydantic"}
NOT_PINNED = {"bitsandbytes", "liger-kernel"}
"""Packages for GPUs, which `make setup` does not install."""


def asked_for(*extras: str) -> dict[str, Requirement]:
    """By name, what a plain installation asks for, and what some extras do."""
    said = [*PROJECT["dependencies"], *(each for extra in extras for each in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(each.name): each for each in map(Requirement, said)}


def imported(folder: Path) -> set[str]:
    """The names of the distributions whose packages are imported somewhere in a folder."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    owners = packages_distributions()  # what is not installed here is taken to be called as it is imported
    found = {
        canonicalize_name(owners.get(name, [name])[0]) for name in names - {"parityalign"} - sys.stdlib_module_names
    }
    return {COMES_WITH.get(name, name) for name in found}


def test_every_package_that_is_imported_is_asked_for():
    users = [extra for extra in PROJECT["optional-dependencies"] if extra != "dev"]
    assert imported(ROOT / "src") <= asked_for(*users).keys()


def test_the_demo_needs_no_extra():
    assert imported(ROOT / "src" / "parityalign" / "demo") <= asked_for().keys()


def test_each_package_is_pinned_within_its_range():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    asked = asked_for(*PROJECT["optional-dependencies"])
    for name in NOT_PINNED:
        del asked[name]
    assert pinned.keys() == asked.keys()
    assert not [f"{name} {pinned[name]}" for name, said in asked.items() if pinned[name] not in said.specifier]


def test_continuous_integration_installs_what_is_pinned():
    assert re.search(r"^make test\b(?!-)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    setup = re.search(r"^\.venv/set-up:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert setup and "pip install -c constraints.txt " in setup[1]


@pytest.fixture
def index_page(monkeypatch) -> str:
    """The text that a build puts into the metadata."""
    taken = {}
    monkeypatch.setattr(setuptools, "setup", lambda **said: taken.update(said))
    runpy.run_path(str(ROOT / "setup.py"))
    return taken["long_description"]


def test_the_index_page_has_the_readme_without_links_to_files(index_page):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](docs/" in readme and "`docs/settings.md`" in index_page
    assert re.findall(r"\]\((?!https://)[^)]*\)", index_page) == []
    assert index_page.count("https://") == readme.count("https://")


def test_the_fonts_and_the_words_of_others_have_their_licences_with_them():
    words = ROOT / "src" / "parityalign" / "stages" / "words"
    fonts = ROOT / "src" / "parityalign" / "demo" / "fonts"
    licences = {path for pattern in PROJECT["license-files"] for path in ROOT.glob(pattern)}
    families = {re.split(r"General|Sans|Serif", path.name)[0].upper() for path in fonts.glob("*.ttf")}
    assert licences == {
        ROOT / "LICENSE",
        words / "LICENSE_WORDNET",
        *(fonts / f"LICENSE_{family}" for family in families),
    }


def test_every_file_of_the_package_is_in_the_wheel():
    package = ROOT / "src" / "parityalign"
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    taken = {path for pattern in tools["setuptools"]["package-data"]["parityalign"] for path in package.glob(pattern)}
    there = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert not [path for path in there - taken if path.suffix != ".py"]
