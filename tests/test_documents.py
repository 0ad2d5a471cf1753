"""What the documents show holds: code runs, settings fit the schema, commands and files exist."""

import ast
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import typer
import yaml

import parityalign
from makers import speckle
from parityalign.cli.app import app
from parityalign.config import RunConfig, read_config
from parityalign.core.registry import GROUPS
from projects import configure, done, make_project

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "recipes/README.md", "llms.txt", "skills/parityalign/SKILL.md")
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
KINDS = {"python", "yaml", "sh", "json", "text", "toml"}
"""Languages of blocks; `text` is for figures and trees, which nothing reads."""
OTHER_PROGRAMS = {"pip", "make", "parityalign", ".venv/bin/pre-commit"}
COMPILED_ONLY = re.compile(r"<!-- compiled only: .+ -->\s*$")
"""Stands before a block of Python that needs the hub, a GPU or a server, and says which."""
PACKAGE = ROOT / "src" / "parityalign"
FOLDERS = ("src", "tests", "docs", "examples", "recipes", "benchmarks", "tools")
OFFERED = {f"parityalign.{group}" for group in GROUPS}
"""The groups of entry points."""
LEAST = {"run": "runs/a", "teacher": "fake:t.json", "student": "fake:s.json", "tasks": {"textvqa": {"images": "pool"}}}
"""What a fragment of a RUN.yaml is completed with."""


class Block(NamedTuple):
    """A fenced block: where it begins, its language, its text."""

    document: Path
    line: int
    kind: str
    text: str
    compiled_only: bool = False

    @property
    def place(self) -> str:
        return f"{named(self.document)}:{self.line}"


def named(document: Path) -> str:
    return str(document.relative_to(ROOT)) if document.is_relative_to(ROOT) else document.name


def blocks_of(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for found in re.finditer(r"^( *)```([^\n`]*)\n(.*?)^ *```$", text, re.M | re.S):
        before, code = text[: found.start()], inspect.cleandoc("\n" + found[3])
        yield Block(document, before.count("\n") + 1, found[2].strip(), code, bool(COMPILED_ONLY.search(before)))


def prose_of(document: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)


def spans_of(document: Path) -> list[str]:
    """Code within the prose."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose_of(document))]


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]
TUTORIAL = ROOT / "CONTRIBUTING.md"
"""Its blocks are compared with the guest package, which tests/test_guest_package.py installs and runs."""


def shown(*kinds: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind in kinds and block.document != TUTORIAL]


# Python


@pytest.fixture
def workshop(tmp_path, monkeypatch, trainable):
    """The working directory that the documents' code finds: a RUN.yaml, pictures, and an export for TRL."""
    make_project(tmp_path)
    configure(tmp_path, run="runs/signs").rename(tmp_path / "RUN.yaml")
    speckle(tmp_path / "photos" / "1.png", seed=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export_for_trainers() -> None:
    parityalign.open_run("RUN.yaml").upto("identify")
    for form in ("messages", "trl"):
        done("export", "runs/signs", "--format", form, "--what", "all")


PREPARED = {"docs/gaps-elsewhere.md": export_for_trainers}
"""What a document's code needs besides."""


def of_one_document(blocks: list[Block]) -> list[tuple[Path, list[Block]]]:
    return [(document, list(part)) for document, part in groupby(blocks, lambda block: block.document)]


@pytest.mark.parametrize(
    ("document", "blocks"), of_one_document(shown("python")), ids=lambda each: named(each) if each in DOCUMENTS else ""
)
def test_python_in_a_document_runs_from_top_to_bottom(document, blocks, workshop, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", workshop / "cache")
    PREPARED.get(named(document), lambda: None)()
    space: dict[str, object] = {"__name__": "shown"}
    for block in blocks:
        code = compile(block.text, block.place, "exec")
        if block.compiled_only:
            assert not list(unknown_names(block.text)), block.place
        else:
            exec(code, space)


def unknown_names(code: str) -> Iterator[str]:
    """What code takes from parityalign and is not there: names of its packages, keywords of its functions."""
    tree = ast.parse(code)
    known: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {each.asname or each.name: parityalign for each in node.names if each.name == "parityalign"}
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "parityalign":
            package = __import__(node.module, fromlist=["*"])
            yield from (each.name for each in node.names if not hasattr(package, each.name))
            known |= {each.asname or each.name: getattr(package, each.name, None) for each in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(thing := meant(node.value, known), ModuleType):
            yield from [] if hasattr(thing, node.attr) else [node.attr]
        if isinstance(node, ast.Call) and inspect.isfunction(thing := meant(node.func, known)):
            yield from unknown_keywords(thing, {keyword.arg for keyword in node.keywords if keyword.arg})


def meant(node: ast.expr, known: dict[str, object]) -> object:
    if isinstance(node, ast.Attribute):
        return getattr(meant(node.value, known), node.attr, None)
    return known.get(node.id) if isinstance(node, ast.Name) else None


def unknown_keywords(function: object, given: set[str]) -> set[str]:
    parameters = inspect.signature(function).parameters
    taken = set(parameters)
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        taken |= set(RunConfig.model_fields)  # open_run takes what a RUN.yaml says
    return given - taken


# Settings


def refuse_wrong_settings(said: object, folder: Path) -> None:
    """Completes a fragment to a RUN.yaml and reads it; the paths in it need not exist."""
    assert isinstance(said, dict), said
    (folder / "RUN.yaml").write_text(yaml.safe_dump({**LEAST, **said}))
    read_config(folder / "RUN.yaml")


@pytest.mark.parametrize("block", shown("yaml"), ids=lambda block: block.place)
def test_settings_in_a_document_fit_the_schema(block, tmp_path):
    refuse_wrong_settings(yaml.safe_load(block.text), tmp_path)


def settings_in(document: Path) -> Iterator[dict[str, object]]:
    """Fragments in the prose such as `level: {max_steps: 5}`; one with an ellipsis is none."""
    for span in spans_of(document):
        if re.match(rf"({'|'.join(RunConfig.model_fields)}): \{{", span) and "..." not in span:
            yield yaml.safe_load(span)


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_settings_in_the_prose_fit_the_schema(document, tmp_path):
    for said in settings_in(document):
        refuse_wrong_settings(said, tmp_path)


# Commands


def commands_in(block: str) -> Iterator[list[str]]:
    """The words of each line; of `a|b` in a synopsis the first, with what is optional."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(re.sub(r"(?<![\w'])\[(.*?)\](?![\w'])", r"\1", line), comments=True)
        if words := [word.split("|")[0] for word in words]:
            yield words


def refuse_wrong_command(words: list[str], *, whole: bool = True) -> None:
    """Raises where a command, an option, a target or an extra is unknown.

    Args:
        words: The command.
        whole: Whether what it needs has to be there too, as in a block; prose may only name it.
    """
    match words:
        case ["parityalign", *arguments]:
            refuse_wrong_arguments(arguments, whole=whole)
        case ["make", *arguments]:
            targets = [word for word in arguments if "=" not in word]
            assert set(targets) <= targets_of_make(), f"no such target: {targets}"
            used = (ROOT / "Makefile").read_text()
            assert all(f"$({name})" in used or f"{name}=" in used for name in variables(arguments)), arguments
        case ["pip", "install", *arguments]:
            found = re.findall(r"(?:parityalign|\.)\[([\w,]+)\]", " ".join(arguments))
            assert {extra for extras in found for extra in extras.split(",")} <= extras_of_project(), words
        case _:
            assert words[0] in OTHER_PROGRAMS, f"an unknown program: {words}"


def variables(arguments: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in arguments if "=" in word]


def refuse_wrong_arguments(arguments: list[str], *, whole: bool) -> None:
    group = typer.main.get_command(app)
    if not arguments or arguments[0].startswith("-"):
        assert arguments in ([], ["--help"]), arguments
        return
    assert arguments[0] in group.commands, f"no such command: {arguments[0]}"
    command = group.commands[arguments[0]]
    if whole:
        command.make_context(arguments[0], arguments[1:])
    else:
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("-")} <= {*options, "--help"}, arguments


def targets_of_make() -> set[str]:
    return set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.M))


def extras_of_project() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@pytest.mark.parametrize("block", shown("sh"), ids=lambda block: block.place)
def test_commands_in_a_document_exist_with_their_options(block):
    for words in commands_in(block.text):
        refuse_wrong_command(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_commands_in_the_prose_exist(document):
    for span in spans_of(document):
        if "check_labels" in span:  # the guest's stage
            continue
        if re.match(r"(parityalign|make|pip install) \S", span):
            for words in commands_in(span):
                refuse_wrong_command(words, whole=False)


# Whatever is left


def test_json_in_the_documents_can_be_read():
    for block in shown("json"):
        assert json.loads(block.text), block.place


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_files_and_modules_that_the_prose_names_are_there(document):
    assert not list(missing_things(document))


def missing_things(document: Path) -> Iterator[str]:
    """Files of the project, from its root or from the package's, folders, and dotted names of the package."""
    for span in spans_of(document):
        is_file = re.fullmatch(rf"({'|'.join(FOLDERS)})/[a-z0-9_./-]*|([a-z_]+/)+([a-z_]+|NAME)\.py", span)
        path = span.removesuffix("/NAME.py")  # stands for a file that a reader may add there
        if is_file and not any((root / path).exists() for root in (ROOT, PACKAGE)):
            yield span
        if re.fullmatch(r"parityalign(\.[a-z_]+)+", span) and span not in OFFERED and not is_there(span):
            yield span


def test_the_table_of_packages_is_what_is_there():
    listed = re.findall(r"^\| `(\w+)/` \|", (ROOT / "docs" / "design.md").read_text(), re.M)
    assert sorted(listed) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def is_there(name: str) -> bool:
    thing: object = parityalign
    for part in name.split(".")[1:]:
        is_package = isinstance(thing, ModuleType) and find_spec(f"{thing.__name__}.{part}")
        thing = import_module(f"{thing.__name__}.{part}") if is_package else getattr(thing, part, None)
    return thing is not None


def test_every_block_says_what_it_is():
    assert not [f"{block.place}: {block.kind!r}" for block in BLOCKS if block.kind not in KINDS]
    fences = sum(len(re.findall(r"^ *```", document.read_text(), re.M)) for document in DOCUMENTS)
    assert fences == 2 * len(BLOCKS)


def anchors_of(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ +(.+)$", prose_of(document), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(document)):
        if re.match(r"\w+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = document.parent / file if file else document
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            yield f"{named(document)}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_in_a_document_lead_somewhere(document):
    assert not list(broken_links(document))


# The checks themselves


@pytest.mark.parametrize(
    "wrong",
    [
        ["parityalign", "lift", "RUN"],
        ["parityalign", "level"],
        ["parityalign", "level", "RUN", "--fast"],
        ["make", "lunch"],
        ["make", "test", "COOKS=2"],
        ["pip", "install", "-e", ".[lora,lunch]"],
        ["curl", "-O", "x"],
    ],
    ids=" ".join,
)
def test_a_command_that_is_not_there_is_noticed(wrong):
    with pytest.raises(Exception, match=r"(?i)no such|missing|lift|lunch|COOKS|unknown"):
        refuse_wrong_command(wrong)


def test_a_setting_that_is_not_there_is_noticed(tmp_path):
    with pytest.raises(parityalign.UserError, match="unknown setting 'level.stepz'"):
        refuse_wrong_settings({"level": {"stepz": 5}}, tmp_path)


def test_a_name_or_keyword_that_is_not_there_is_noticed_without_running_the_code():
    code = """
import parityalign as pa
from parityalign.core import Pair, Bear
run = pa.open_run("hf", teecher=1, student=2)
pa.metrics.nals("a", ["b"])
pa.identify([], [], [], task="t", role="x")
"""
    assert sorted(unknown_names(code)) == ["Bear", "nals", "role", "teecher"]


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One: two\n[a](#one-two) [b](#three) [c](gone.md) [d](page.md#one-two) [e](https://example.org)\n"
    )
    assert list(broken_links(page)) == ["page.md: #three", "page.md: gone.md"]


def test_a_file_or_module_that_is_gone_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`src/gone.py` `gone/NAME.py` `tests/test_house.py` `stages/parsing.py` `metrics/NAME.py` "
        "`parityalign.gone.content_id` `parityalign.core.Pair`"
    )
    assert list(missing_things(page)) == ["src/gone.py", "gone/NAME.py", "parityalign.gone.content_id"]


def test_a_block_is_marked_as_compiled_only_by_the_comment_before_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- compiled only: needs the hub -->\n```python\n1\n```\n\n```python\n2\n```\n")
    assert [(block.text, block.line, block.compiled_only) for block in blocks_of(page)] == [
        ("1", 2, True),
        ("2", 6, False),
    ]
