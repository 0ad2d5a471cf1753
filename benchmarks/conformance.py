"""Holds every family of models to the same checks and writes down what came out: `make conformance`.

    python benchmarks/conformance.py [FILE]

The table in FILE (docs/models.md) is made of the outcomes of tests/test_conformance.py and of nothing else. It has no
date, so it changes when something changes. Exits with 1 if a check failed.
"""

import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INTRODUCTION = """\
# Families of models

Made by `make conformance`; not to be edited. Each family is built here from transformers' own classes at a tiny,
random size and lies in a folder as on the hub: its image processor, its tokenizer's class with the family's special
tokens, a chat template in the family's style. Then it goes through the same code as any model. So the table says that
prompts, masks, padding, pictures, saving and merging are right; it says nothing about how good a model's answers are,
and no published weights were loaded.
"""
TRAPS = {
    "Qwen2-VL": "Its positions count pictures in two dimensions and are made from `mm_token_type_ids`, so these travel "
    "with each token, also into training. Its patches are cut by a three-dimensional convolution, which refuses the "
    "order of weights (`channels_last`) that makes other convolutions fast.",
    "Qwen2.5-VL": "As Qwen2-VL. Its tower looks through windows over the patches of all pictures of a batch, laid end "
    "to end.",
    "Qwen3-VL": "As Qwen2-VL; the tower's inner layers reach into the language model, so a picture is more than the "
    "features at its end and cannot be shared between two prompts by those alone.",
    "SmolVLM": "Its processor wants the package num2words even where there is no video. It pads with "
    "`<|im_end|>`, which in other families ends a turn; here `<end_of_utterance>` does.",
    "Idefics3": "The chat begins with `<|begin_of_text|>` and so does the tokenizer: once is enough. Pictures of "
    "unequal shape have unequal numbers of tiles, which are filled up with tiles of zeros; the model leaves those out.",
    "InternVL": "Its processor pads at the left even in training, unless it is given one row at a time, as here.",
    "LLaVA": "It looks at the square in the middle of a picture; what is at the ends of an oblong one is not seen. A "
    "template that writes no end after an answer leaves the end to the tokenizer's `</s>`.",
    "LLaVA-NeXT": "Tiles as in Idefics3; the picture's own size decides which of their places count. A limit on pixels "
    "has to reach the tilings in the model's configuration too.",
    "LLaVA-OneVision": "Templates in its style write a space before an answer that was given and none before one that "
    "is to come, so the two texts differ at the border; the answer is put behind the prompt of inference.",
    "PaliGemma": "The prompt is read in both directions, the answer in one: an answer's tokens must be marked with 1 "
    "in `token_type_ids`, or they see their own end while they are learnt. Its processor also gives `labels` for a "
    "prompt without an answer, which must not replace the true ones, and ends the prompt with a line's end that is not "
    "in the chat. Published folders may lack a chat template; then they are refused.",
    "Gemma 3": "A picture's places see each other in both directions (`token_type_ids` are 1 there); an answer's "
    "tokens must have 0, the opposite of PaliGemma. Its turns end with `<end_of_turn>`, its texts with `<eos>`: "
    "both stop it.",
    "FastVLM": "The embedded models' family. Its tower has batch norm, whose statistics must stay as they are while "
    "the student learns.",
}


class Outcomes:
    """A pytest plugin that keeps which family passed which check."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], list[bool]] = defaultdict(list)
        self.notes: dict[tuple[str, str], str] = {}
        self._places: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Finds the place of each test in the table."""
        for item in items:
            marker = item.get_closest_marker("check")
            if marker and isinstance(item, pytest.Function):
                self._places[item.nodeid] = (item.callspec.params["family"].name, marker.args[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes one outcome; what fails while it is set up fails."""
        place = self._places.get(report.nodeid)
        if place and (report.when == "call" or report.failed):
            self.cells[place].append(report.passed)
            said = dict(report.user_properties)
            self.notes |= {place: str(said["note"])} if "note" in said else {}


def installed(package: str) -> str:
    """The package with its version, or that it is not there."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def page(outcomes: Outcomes) -> str:
    """The whole file."""
    checks = list(dict.fromkeys(check for _, check in outcomes.cells))
    families = list(dict.fromkeys(family for family, _ in outcomes.cells))
    notes = list(dict.fromkeys(outcomes.notes.values()))

    def cell(family: str, check: str) -> str:
        found = outcomes.cells.get((family, check))
        note = outcomes.notes.get((family, check))
        mark = f" ({notes.index(note) + 1})" if note else ""
        return (("yes" if all(found) else "**no**") + mark) if found else "not run"

    rows = [[family, *(cell(family, check) for check in checks)] for family in families]
    numbers = [str(number) for number in range(1, len(checks) + 1)]
    table = [["family", *numbers], ["---"] * (len(checks) + 1), *rows]
    passed = [done for cell in outcomes.cells.values() for done in cell]
    packages = ", ".join(map(installed, ("transformers", "torch", "torchvision", "peft")))
    return "\n".join(
        [
            INTRODUCTION,
            f"With {packages}, in single precision on a CPU: {sum(passed)} of {len(passed)} tests passed.\n",
            *("| " + " | ".join(row) + " |" for row in table),
            "",
            *(f"{number}. {check}" for number, check in zip(numbers, checks, strict=True)),
            *(f"\n({number}) {note}" for number, note in enumerate(notes, 1)),
            "\n## Traps\n",
            *(f"- **{family}**: {TRAPS[family]}" for family in families),
            "",
        ]
    )


def main() -> int:
    """Runs the tests and writes the file."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "models.md"
    outcomes = Outcomes()
    status = pytest.main([str(ROOT / "tests" / "test_conformance.py"), "-W", "ignore"], plugins=[outcomes])
    if outcomes.cells:
        file.write_text(page(outcomes), encoding="utf-8")
        print(f"written: {file}")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
