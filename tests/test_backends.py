"""Ways to reach a model: each says what it can, one from another package is as good as ours."""

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from parityalign.config import model_specs
from parityalign.config.backend import backend_of
from parityalign.core import registry
from parityalign.core.errors import UserError
from parityalign.models.open import fingerprint
from projects import WORDS, configure, done, refusal

LIGHT = """
import sys
from parityalign.config import Backend
from parityalign.core import load_part, part_names
for name in part_names("backends"):
    load_part("backends", name, Backend)
sys.exit("torch" in sys.modules or "transformers" in sys.modules)
"""
GUEST = """
import asyncio
import json
from pathlib import Path

from parityalign.config import Backend
from parityalign.core import NoReply, Said, UserError

WORDS = {words}


def said(image, prompt, words=WORDS):
    word = Path(image).stem
    word = word if word in words else "nothing"
    return "Question: What is written?\\nAnswer: " + word if prompt.startswith("Write one question") else word


class Here:
    special_tokens = frozenset()

    def __init__(self, location, loading):
        self.name = "here:" + location
        self.words = WORDS[:4] if location == "small" else WORDS

    def generate(self, requests, decoding):
        return [said(request.image, request.prompt, self.words) for request in requests]


class Elsewhere:
    special_tokens = frozenset()
    asked = []

    def __init__(self, location, loading, server):
        self.name = "elsewhere:" + location

    async def ask(self, request, decoding):
        self.asked.append((request.image, request.prompt))
        await asyncio.sleep(0)
        if self.asked.count((request.image, request.prompt)) == 1 and Path(request.image).stem == "stop":
            raise NoReply("a hiccup", again=True)
        return Said(said(request.image, request.prompt), prompt_tokens=len(request.image), completion_tokens=2)


def check(location, loading):
    if location == "bad":
        raise UserError("the guest has no model bad")


def old_load(location):
    return Here(location, None)
"""
PARTS = {
    "here": "BACKEND = Backend(load=Here, check=check)",
    "elsewhere": "BACKEND = Backend(connect=Elsewhere)",
    "old": "BACKEND = Backend(load=old_load)",
    "short": "BACKEND = Backend(connect=Here)",
    "neither": "BACKEND = Backend(trainable=True)",
    "none": "",
}


@pytest.fixture
def guest(tmp_path, monkeypatch):
    """A package `guest` that offers backends by entry points."""
    folder = tmp_path / "site"
    (folder / "guest-1.0.dist-info").mkdir(parents=True)
    for name, part in PARTS.items():
        (folder / f"guest_{name}.py").write_text(GUEST.replace("{words}", repr(WORDS)) + part)
        monkeypatch.delitem(sys.modules, f"guest_{name}", raising=False)
    (folder / "guest-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    offered = "".join(f"{name} = guest_{name}\n" for name in PARTS)
    (folder / "guest-1.0.dist-info" / "entry_points.txt").write_text(f"[parityalign.backends]\n{offered}")
    monkeypatch.syspath_prepend(folder)
    assert entry_points(group="parityalign.backends", name="here")


def test_asking_what_the_backends_can_loads_no_torch():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


@pytest.mark.slow
def test_a_guest_is_the_teacher_of_a_whole_run(project, trainable, guest):
    said = done("run", configure(project, teacher="here:anything"))
    assert "pairs 8" in said
    assert done("run", project / "run.yaml").count("up to date") == 7


def test_a_guest_that_cannot_be_trained_is_refused_as_a_student_by_its_backend(project, guest):
    said = refusal("run", configure(project, student="here:small"))
    assert "the student here:small cannot be trained: the backend 'here' makes models that only answer" in said


@pytest.mark.slow
def test_a_guest_that_answers_from_elsewhere_has_ledger_attempts_and_budget(project, trainable, guest):
    quick = {"backoff": 0.001}
    taught = {"teacher": "elsewhere:far"}
    said = refusal("run", configure(project, **taught, server=quick | {"budget_requests": 7}), status=1)
    assert "server.budget_requests is 7" in said
    elsewhere = sys.modules["guest_elsewhere"].Elsewhere
    assert len(elsewhere.asked) == 7  # the one that had a hiccup counts twice
    done("run", configure(project, **taught, server=quick))
    asked = [(image, prompt) for image, prompt in elsewhere.asked if str(project) in image]
    assert {asked.count(each) for each in asked if "stop" not in each[0]} == {1}
    manifest = json.loads((project / "runs/a/pairs/manifest.json").read_text())
    assert manifest["servers"]["elsewhere:far"]["retries"] == 1
    assert manifest["servers"]["elsewhere:far"]["answers"] == len(WORDS) + 2 * 3  # the probe, in each process


def test_what_a_guest_finds_wrong_is_told_before_anything_is_computed(project, guest):
    assert "the guest has no model bad" in refusal("run", configure(project, teacher="here:bad"))
    assert not (project / "runs" / "a").exists()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "old",
            r"guest\) cannot be used: it defines load\(location\), but it is called as load\(location, loading\)",
        ),
        ("short", r"defines connect\(location, loading\), but it is called as connect\(location, loading, server\)"),
        ("neither", r"package guest\) cannot be used: it has to define one of load, connect and serve, and no other"),
        ("none", r"package guest\) has to define BACKEND, a parityalign\.config\.Backend, and does not"),
    ],
)
def test_a_guest_of_another_form_is_refused_by_name_before_a_run_begins(project, guest, kind, said):
    with pytest.raises(UserError, match=said):
        backend_of(f"{kind}:x")
    assert kind in refusal("run", configure(project, teacher=f"{kind}:x"))
    assert not (project / "runs" / "a").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("teacher", "write KIND:LOCATION"),
        ("hf:", "write KIND:LOCATION"),
        ("hff:folder", r"no kind of model 'hff'.*Did you mean hf"),
        ("embedded:nobody", "no embedded model 'nobody'"),
    ],
)
def test_a_model_that_cannot_be_is_refused(spec, message):
    with pytest.raises(UserError, match=message):
        model_specs.split_model(spec)


def test_listing_names_imports_nothing():
    sys.modules.pop("parityalign.models.backends.hf", None)
    assert "hf" in registry.part_names("backends")
    assert "parityalign.models.backends.hf" not in sys.modules


def test_embedded_models_are_folders_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "teacher").mkdir()
    monkeypatch.setattr(model_specs, "EMBEDDED_MODELS", tmp_path)
    assert model_specs.split_model("embedded:teacher") == ("hf", str(tmp_path / "teacher"))


def test_the_fingerprint_of_a_folder_follows_its_content_and_not_its_place(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps({"x": 1}))
    first, second = (fingerprint(f"hf:{tmp_path / folder}") for folder in ("a", "b"))
    (tmp_path / "b" / "model.safetensors").write_bytes(b"\0")
    assert first == second != fingerprint(f"hf:{tmp_path / 'b'}")


def test_a_card_written_anew_leaves_a_levelled_student_the_same_model_to_those_that_use_it(tmp_path):
    student = tmp_path / "student"
    student.mkdir()
    (student / "config.json").write_text("{}")
    (student / "README.md").write_text("a card")
    of_anybody = fingerprint(f"hf:{student}")
    (student / "manifest.json").write_text("{}")
    before = fingerprint(f"hf:{student}")
    (student / "README.md").write_text("the card of a newer version")
    (student / "scores.svg").write_text("<svg/>")
    assert fingerprint(f"hf:{student}") == before != of_anybody
    (student / "config.json").write_text("{ }")
    assert fingerprint(f"hf:{student}") != before


def test_the_fingerprint_of_a_hub_id_is_taken_from_its_name():
    assert fingerprint("hf:some/model") == fingerprint("hf:some/model")
    assert fingerprint("hf:some/model") != fingerprint("hf:some/other")


def test_the_fingerprint_of_a_file_follows_its_content(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    first = fingerprint(f"fake:{tmp_path / 'a.json'}")
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert first != fingerprint(f"fake:{tmp_path / 'a.json'}")
