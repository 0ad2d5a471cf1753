"""A model's folder is foreign: whatever is wrong with it ends in a word before anything is paid, and soon."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial, reduce
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from makers import mute
from parityalign.config.run_yaml import load_config
from parityalign.core.deadlines import TookTooLongError, in_time
from parityalign.core.errors import UserError
from parityalign.models import checking
from parityalign.models.checking import check_model
from parityalign.models.checkpoint import WEIGHTS
from parityalign.pipeline import preflight
from projects import configure

SOON = 20.0
"""Seconds; a busy machine takes one."""
FILES = (
    "chat_template.jinja",
    "config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    WEIGHTS,
)
CONTENTS = {
    "empty": b"",
    "garbage": bytes(range(256)) * 4,
    "a list": b"[]",
    "an object": b"{}",
    "a number": b"3",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
}
VALUES = {"nothing": None, "minus one": -1, "zero": 0, "vast": 10**18, "text": "x", "list": [], "object": {}}
TEMPLATES = {
    "takes texts": "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}",
    "raises": "{{ raise_exception('no') }}",
    "is no template": "{% for",
    "knows no such name": "{{ a.b.c }}",
    "divides by zero": "{{ 1 // 0 }}",
    "calls itself": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "reads files": "{% include '/etc/passwd' %}",
    "looks for classes": "{{ ''.__class__.__mro__ }}",
    "leaves out the question": "{{ messages | length }}<image>",
    "leaves out the picture": tiny.CHAT_TEMPLATE.replace("<image>", ""),
    "refuses an answer": tiny.CHAT_TEMPLATE
    + "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return tiny.llava(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def model(sound, tmp_path):
    """A copy of a tiny model, to be damaged."""
    return shutil.copytree(sound, tmp_path / "model")


def is_in_words(folder: Path) -> str:
    """What is said of a model that is refused; empty: it is not."""
    began = time.monotonic()
    try:
        check_model(str(folder))
    except UserError as problem:
        assert str(problem).strip() and len(str(problem)) < 3000
        return str(problem)
    finally:
        assert time.monotonic() - began < SOON
    return ""


def places(content: object, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all values in JSON, of lists the first."""
    inside = (
        content.items() if isinstance(content, dict) else enumerate(content[:1]) if isinstance(content, list) else ()
    )
    for key, value in inside:
        yield (*before, key)
        if key != "vocab":
            yield from places(value, (*before, key))


def change(file: Path, place: tuple[str | int, ...], value: object) -> None:
    content = json.loads(file.read_text())
    reduce(lambda part, key: part[key], place[:-1], content)[place[-1]] = value
    file.write_text(json.dumps(content))


def test_a_sound_model_passes(sound):
    assert not is_in_words(sound)


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_something_else_is_told(model, name, content):
    (model / name).write_bytes(CONTENTS[content])
    assert is_in_words(model) or (name, content) == ("tokenizer_config.json", "an object")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_missing_or_no_file_is_told(model, name):
    whole = (model / name).read_bytes()

    (model / name).write_bytes(whole[: len(whole) // 2])
    assert is_in_words(model)
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path.name)):
        (model / name).unlink()
        make(model / name)
        assert is_in_words(model)
    (model / name).unlink()
    assert is_in_words(model) or name == "tokenizer_config.json"


@pytest.mark.long
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_no_value_of_another_kind_ends_in_a_traceback_or_takes_long(model, name, value):
    whole = (model / name).read_text()
    for place in places(json.loads(whole)):
        change(model / name, place, VALUES[value])
        is_in_words(model)  # succeeds, or says why
        (model / name).write_text(whole)


@pytest.mark.parametrize("place", ["num_hidden_layers", "layer_types", "hidden_size", "vocab_size"])
@pytest.mark.parametrize("number", [10**9, 10**30, 1e300])
def test_a_model_of_absurd_size_is_refused_and_not_built(model, place, number):
    change(model / "config.json", ("text_config", place), number)
    assert is_in_words(model)


@pytest.mark.parametrize("number", [10**9, 10**12])
def test_pictures_of_absurd_size_are_refused_and_not_made(model, number):
    for place in (("image_processor", "size", "height"), ("num_additional_image_tokens",)):
        whole = (model / "processor_config.json").read_text()
        change(model / "processor_config.json", place, number)
        assert f"{'.'.join(place)} is {number:.4g}" in is_in_words(model)
        (model / "processor_config.json").write_text(whole)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_processor_that_makes_no_numbers_of_a_picture_is_refused(model):
    change(model / "processor_config.json", ("image_processor", "image_std"), [0, 0, 0])
    assert "image_std" in is_in_words(model)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_template_that_cannot_ask_about_a_picture_is_told(model, template):
    (model / "chat_template.jinja").write_text(TEMPLATES[template])
    told = is_in_words(model)
    assert "chat template" in told or "<image>" in told


def test_a_chat_template_that_does_not_end_is_left_alone(model, monkeypatch):
    monkeypatch.setattr(checking, "PATIENCE", 1.0)
    loop = "{% for i in range(3000) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"  # then the thread ends
    (model / "chat_template.jinja").write_text(loop)
    assert "took more than 1 seconds" in is_in_words(model)


def test_what_a_busy_machine_gives_no_processor_is_not_taken_to_be_without_end():
    slow, enough = partial(time.sleep, 0.3), Event()  # as if other programs had the processor

    def loop() -> None:
        while not enough.is_set():
            pass

    with pytest.raises(TookTooLongError):
        in_time(loop, 0.1, computes=True)
    in_time(slow, 0.1, computes=True)  # beside a thread that goes on
    with pytest.raises(TookTooLongError):
        in_time(slow, 0.1)
    enough.set()


@pytest.mark.parametrize("damage", ["lacks", "shape"])
def test_weights_that_are_not_all_there_are_named(model, damage):
    weights = load_file(model / WEIGHTS)
    name = sorted(weights)[3]
    if damage == "lacks":
        del weights[name]
    else:
        weights[name] = torch.zeros(3)
    save_file(weights, model / WEIGHTS, {"format": "pt"})
    told = is_in_words(model)
    assert name.rpartition(".")[0].split(".")[-1] in told
    assert ("lacks 1 weights" if damage == "lacks" else "another shape") in told


def is_refused(path: Path) -> str:
    with pytest.raises(UserError) as refused, preflight.open_run_folder(load_config(path), mute):
        pass
    return str(refused.value)


def test_a_student_is_checked_before_the_teacher_is_asked_also_where_the_user_wrote_run_yaml_in_the_run_folder(
    project, model
):
    (project / "runs" / "a").mkdir(parents=True)
    said = {"teacher": "fake:../../teacher.json", "student": f"hf:{model}", "run": "."}
    path = configure(project, **said, tasks={"textvqa": {"images": "../../pool"}})
    path = shutil.move(path, project / "runs" / "a" / "run.yaml")
    (model / WEIGHTS).write_bytes(b"version https://git-lfs")
    before = sorted(project.rglob("*"))
    assert "damaged: model.safetensors" in is_refused(path)
    assert sorted(project.rglob("*")) == before


def test_a_student_that_is_damaged_between_two_commands_is_noticed_by_the_next(project, model):
    path = configure(project, student=f"hf:{model}")
    with preflight.open_run_folder(load_config(path), mute) as run:
        run.folder.artifact("images", inputs={}, settings={}).finish({})
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:-1])
    assert "damaged: model.safetensors" in is_refused(path)
