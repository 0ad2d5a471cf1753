"""Terms of the loss that another package brings: what they need is read before anything is imported."""

import json
import sys

import pytest

from parityalign import training
from parityalign.config.training import LevelSettings, needs_of
from parityalign.core.errors import UserError
from parityalign.core.registry import declared
from parityalign.pipeline import level
from projects import configure, done, refusal

LOSSES = "def losses(passes, **settings):\n    raise NotImplementedError\n"


@pytest.fixture
def offer(tmp_path_factory, monkeypatch):
    """Installs a package whose module is the term `toy`."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "foreign_terms"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    info = folder / "foreign-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[parityalign.losses]\ntoy = foreign_terms.toy\n")
    monkeypatch.syspath_prepend(folder)

    def write(source: str, importable: bool = False) -> None:
        (package / "toy.py").write_text(source)
        if importable:
            (package / "__init__.py").write_text("")

    yield write
    for name in ("foreign_terms", "foreign_terms.toy"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        ("", set()),
        ("NEEDS = frozenset({'rationale'})", {"rationale"}),
        ("NEEDS: frozenset[str] = frozenset({'rationale', 'view'})", {"rationale", "view"}),
        ("NEEDS = {'attention'}", {"attention"}),
        ("NEEDS = ('distribution',)", {"distribution"}),
        ("NEEDS = frozenset()", set()),
        ("def losses(passes):\n    NEEDS = {'nothing'}", set()),
    ],
)
def test_what_a_term_needs_is_read_without_importing_it_or_its_package(offer, source, needs):
    offer(source)
    assert needs_of("toy") == needs
    assert "foreign_terms" not in sys.modules


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("NEEDS = {'atention'}", "has NEEDS = {'atention'}. Expected: a set of some of attention, distribution, rat"),
        ("NEEDS = 'attention'", "has NEEDS = 'attention'. Expected: a set"),
        ("NEEDS = [['attention']]", "has NEEDS = [['attention']]. Expected: a set"),
        (
            "import os\n\nNEEDS = frozenset(os.environ)",
            "has NEEDS on line 3, but that is not a literal, such as",
        ),
        ("from elsewhere import NEEDS", "has NEEDS on line 1, but that is not a literal"),
        ("NEEDS = {'view'}\nNEEDS |= {'attention'}", "has NEEDS on line 2, but that is not a literal"),
        ("if True:\n    NEEDS = {'view'}", "has NEEDS on line 1, but that is not a literal"),
        ("NEEDS = {", "cannot be read: "),
    ],
)
def test_needs_that_cannot_be_read_are_refused_with_package_part_and_what_was_expected(offer, project, source, said):
    offer(source)
    with pytest.raises(UserError) as refused:
        needs_of("toy")
    told = str(refused.value)
    assert told.startswith("the term of the loss 'toy' (module foreign_terms.toy of the package foreign) ")
    assert said in told
    assert told in refusal("run", configure(project, level={"objective": "toy"}))


def test_a_term_whose_module_is_not_there_is_refused(offer):
    with pytest.raises(UserError, match=r"'toy' \(module foreign_terms\.toy .* has no source file"):
        declared("losses", "toy", "NEEDS")


@pytest.mark.slow
def test_a_term_that_needs_nothing_costs_nothing_more(offer, project, trainable):
    offer(LOSSES)
    assert not LevelSettings(objective="toy").needs_signals
    said = done("run", configure(project, level={"objective": {"answer": 1, "toy": 1}}))
    assert "discrepancy" not in said
    assert not (project / "runs" / "a" / "discrepancy").exists()


@pytest.mark.slow
def test_for_a_term_that_needs_rationales_the_teacher_is_asked(offer, project, trainable):
    offer(f"NEEDS = {{'rationale'}}\n{LOSSES}")
    done("run", configure(project, level={"objective": {"answer": 1, "toy": 1}}))
    assert (project / "runs" / "a" / "discrepancy" / "rationale_replies.jsonl").exists()


def test_a_term_that_the_teacher_shows_nothing_for_is_refused_whoever_wrote_it(offer, project, monkeypatch):
    offer(f"NEEDS = {{'attention'}}\n{LOSSES}")
    monkeypatch.setattr(level, "split_model", lambda spec: ("hf", spec))
    said = refusal("run", configure(project, level={"objective": {"answer": 1, "toy": 1}}))
    assert "level.objective has the term 'toy', but the teacher fake:" in said


def test_a_term_gets_its_own_settings_by_name(offer):
    offer(
        "import torch\nfrom parityalign.config import Settings\n"
        "class SETTINGS(Settings):\n    power: float = 2.0\n    sign: int = 1\n"
        "def losses(passes, power, sign):\n    return torch.tensor([sign * 3.0 ** power])\n",
        importable=True,
    )
    (term, *_), *_ = training.WeightedLoss({"toy": (1, 1)}, settings={"toy": {"sign": -1}})._terms
    assert term(None).tolist() == [-9]


def test_own_settings_are_looked_at_before_anything_runs(offer, project, trainable):
    objective = {"answer": 1, "confidence": {"weight": 1, "divergense": "reverse"}}
    said = refusal("run", configure(project, teacher="embedded:teacher", level={"objective": objective}))
    assert "unknown setting 'level.objective.confidence.divergense'. Did you mean divergence?" in said
    assert not (project / "runs" / "a").exists()


@pytest.mark.slow
def test_other_own_settings_are_another_training_and_the_same_are_not(offer, project, trainable):
    offer("from parityalign.config import Settings\nclass SETTINGS(Settings):\n    power: int = 2\n" + LOSSES, True)
    for power, redone in ((2, False), (2, False), (3, True)):
        said = done("run", configure(project, level={"objective": {"answer": 1, "toy": {"power": power}}}))
        assert ("level: done again" in said) == redone
    manifest = json.loads((project / "runs" / "a" / "student" / "manifest.json").read_text())
    assert manifest["settings"]["level.objective"] == {"answer": 1.0, "toy": {"weight": 1.0, "power": 3}}


def test_a_module_that_defines_no_losses_is_named_before_anything_runs(offer, project):
    offer("def loss(passes): ...\n", importable=True)
    said = refusal("run", configure(project, level={"objective": {"answer": 1, "toy": {"weight": 1, "power": 2}}}))
    assert "the term of the loss 'toy' (module foreign_terms.toy" in said and "define losses" in said
