"""Parts are found by their name; an unknown one is answered with the near ones."""

import json
import sys

import pytest

from parityalign.core import registry
from parityalign.core.errors import UserError
from parityalign.core.interfaces import Benchmark, Skill
from parityalign.tasks import load_task

TASKS = ["chartqa", "okvqa", "stvqa", "textvqa"]


@pytest.mark.parametrize("room", ["skills", "benchmarks"])
def test_the_four_tasks_of_the_paper_are_both_skills_and_benchmarks(room):
    assert set(TASKS) <= set(registry.part_names(room))


@pytest.mark.parametrize("name", [*TASKS, "vqa"])
def test_each_skill_and_each_benchmark_is_a_module_that_defines_it(name):
    assert registry.load_part("skills", name, Skill).name == name
    if name != "vqa":
        benchmark = registry.load_part("benchmarks", name, Benchmark)
        assert (benchmark.name, benchmark.skill) == (name, name)


def test_helper_modules_are_no_parts():
    for room in ("skills", "benchmarks", "metrics", "models", "losses"):
        assert not [name for name in registry.part_names(room) if name.startswith("_")]


def test_listing_names_imports_nothing():
    sys.modules.pop("parityalign.models.backends.hf", None)
    assert "hf" in registry.part_names("models")
    assert "parityalign.models.backends.hf" not in sys.modules


def test_an_unknown_task_is_answered_with_the_near_ones_and_all():
    with pytest.raises(UserError, match=r"no task 'textvq'\. Did you mean textvqa") as refusal:
        load_task("textvq")
    assert "okvqa" in str(refusal.value)
    assert refusal.value.exit_status == 2


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
        registry.split_model(spec)


def test_embedded_models_are_folders_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "teacher").mkdir()
    monkeypatch.setattr(registry, "EMBEDDED_MODELS", tmp_path)
    assert registry.split_model("embedded:teacher") == ("hf", str(tmp_path / "teacher"))


def test_the_fingerprint_of_a_folder_follows_its_content_and_not_its_place(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps({"x": 1}))
    first, second = (registry.fingerprint(f"hf:{tmp_path / folder}") for folder in ("a", "b"))
    (tmp_path / "b" / "model.safetensors").write_bytes(b"\0")
    assert first == second != registry.fingerprint(f"hf:{tmp_path / 'b'}")


def test_the_fingerprint_of_a_hub_id_is_taken_from_its_name():
    assert registry.fingerprint("hf:some/model") == registry.fingerprint("hf:some/model")
    assert registry.fingerprint("hf:some/model") != registry.fingerprint("hf:some/other")


def test_the_fingerprint_of_a_file_follows_its_content(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    first = registry.fingerprint(f"fake:{tmp_path / 'a.json'}")
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert first != registry.fingerprint(f"fake:{tmp_path / 'a.json'}")
