"""The doctor says what a machine has and how a run's models would be loaded on it, without loading them."""

import json
import os
import socket
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import close_session, constants
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

import tiny
from makers import mute
from parityalign.cli.app import app
from parityalign.config import automatic
from parityalign.config.loading import LoadingSettings
from parityalign.config.run_yaml import load_config
from parityalign.core.errors import UserError
from parityalign.engines.store import AnswerStore
from parityalign.models import device
from parityalign.models.checkpoint import WEIGHTS
from parityalign.models.loading import open_config
from parityalign.pipeline import preflight
from parityalign.planning import costs, doctor
from parityalign.planning.sizing import place_of, size_of
from parityalign.training import student
from parityalign.training.facts import student_facts
from programs import nvidia_smi
from serving import reply, serving

GIGABYTE = 10**9
SMALL = doctor.Machine(2, GIGABYTE, [], {"torch": "2", "torchvision": None}, "http://hub", False, "/cache")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tiny model and the configuration of a run with it; the hub is left alone and no weights may be loaded."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tiny.llava(tmp_path / "student")
    load = AutoModelForImageTextToText.from_pretrained

    def counted(*given, **how):
        return load(*given, **how) if how.get("device_map") == {"": "meta"} else pytest.fail("was loaded")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", counted)
    (tmp_path / "pool").mkdir()
    return tmp_path


TEACHER = SimpleNamespace(url="")
"""The server of these tests' teacher, which sees pictures."""


@pytest.fixture(scope="module", autouse=True)
def teacher():
    async def script(body, _before):
        return reply(str(len(str(body))))

    with serving(script) as served:
        TEACHER.url = served.url
        yield


def asked_config(folder, **said: object):
    asked(folder, **said)
    return load_config(folder / "RUN.yaml")


def asked(folder, *options: str, **said: object):
    content = {
        "run": "run",
        "teacher": f"{TEACHER.url}#m",
        "student": "hf:./student",
        "tasks": {"textvqa": {"images": "pool"}},
        **said,
    }
    (folder / "RUN.yaml").write_text(yaml.safe_dump(content))
    return CliRunner().invoke(app, ["doctor", str(folder / "RUN.yaml"), *options])


def test_a_sound_model_is_shown_as_it_would_be_loaded(folder):
    done = asked(folder)
    assert done.exit_code == 0
    assert (
        "LlavaForConditionalGeneration: float32 on cpu, attention sdpa, pictures by CLIPImageProcessorPil"
        in done.output
    )
    assert "(all here)" in done.output and ": fits" in done.output
    assert f"teacher: {TEACHER.url}#m" in done.output
    assert "torchvision" in done.output and "not reachable" in done.output
    assert not (folder / "run").exists()


def test_settings_show_in_what_would_be_done_and_in_its_size(folder):
    told = {}
    for dtype in ("float32", "bfloat16"):
        loading = {"student": {"dtype": dtype, "attention": "eager", "device_map": "auto"}}
        told[dtype] = json.loads(asked(folder, "--json", loading=loading).stdout)["models"][1]
        assert (told[dtype]["dtype"], told[dtype]["attention"]) == (dtype, "eager")
    assert told["float32"]["needs"] == 2 * told["bfloat16"]["needs"] == told["float32"]["files"]


def test_processes_are_told_and_share_the_memory(folder):
    config = asked_config(folder, loading={"student": {"replicas": 3}}, level={"processes": 2})
    gpu = {"name": "G", "memory": GIGABYTE, "bfloat16": True}
    two = replace(SMALL, gpus=[gpu, gpu])
    _, alone = doctor.examine_models(asked_config(folder), replace(SMALL, gpus=[gpu]))
    _, student = doctor.examine_models(config, two)
    assert (alone.shared, alone.has, student.has) == (None, GIGABYTE, GIGABYTE // 2)
    lines = [*doctor.doctor_lines(two, [student])]
    assert "  asked by 3 processes, on 2 GPUs" in lines
    assert student.level.endswith(", 2 processes, each on a GPU of its own")


def test_a_cluster_that_is_not_there_is_a_problem_of_the_models_that_would_be_asked_on_it(folder, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        teacher, student = doctor.examine_models(asked_config(folder, ray={"address": address}), SMALL)
    assert f"no Ray cluster that this machine is a node of at {address}" in student.problem
    assert (teacher.shared, student.has) == (None, None)  # a server's; and of the nodes' memory nothing is known
    monkeypatch.setattr(doctor, "_version", lambda package: "2.60" if package == "ray" else None)
    _, student = doctor.examine_models(asked_config(folder, ray={}), SMALL)
    assert student.shared == "as many replicas on Ray as its nodes have room for, a cluster of this machine alone"


def test_a_problem_is_told_with_what_to_do_and_ends_in_an_error(folder):
    (folder / "student" / "chat_template.jinja").unlink()
    done = asked(folder, teacher="hf:some/teacher")
    assert done.exit_code == 1
    assert "problem: the model" in done.output and "has no chat template" in done.output
    assert (
        "problem: the model some/teacher is missing or incomplete" in done.output
        and "hf download some/teacher" in done.output
    )


def test_weights_that_are_none_are_a_problem_and_no_size_that_fits(folder):
    (folder / "student" / WEIGHTS).write_bytes(b"junk " * 10)
    done = asked(folder)
    assert done.exit_code == 1
    assert "damaged: model.safetensors" in done.output and "download it again" in done.output
    assert "fits" not in done.output


def test_a_method_that_cannot_train_here_is_a_problem_of_the_student_as_it_is_when_the_run_begins(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (student, preflight):  # bitsandbytes is installed, or as good as that
        monkeypatch.setattr(module, "find_spec", lambda name: name)
    told = json.loads(asked(folder, "--json", level={"method": "qlora"}).stdout)["models"]
    assert told[0]["problem"] is None
    assert "level.method is qlora, which needs a GPU" in told[1]["problem"]
    with pytest.raises(UserError) as refused, preflight.open_run_folder(load_config(folder / "RUN.yaml"), mute):
        pass
    assert str(refused.value) == told[1]["problem"]
    monkeypatch.setattr(student, "find_spec", lambda name: None)
    assert "pip install 'parityalign[lora,quantised]'" in asked(folder, level={"method": "qlora"}).output
    monkeypatch.setitem(sys.modules, "peft", None)
    done = asked(folder, level={"method": "lora"})
    assert done.exit_code == 1 and "pip install 'parityalign[lora]'" in done.output
    assert asked(folder, level={"method": "full"}).exit_code == 0


def test_what_auto_comes_to_is_shown_and_a_rate_that_is_refused_is_a_problem(folder, monkeypatch):
    said = asked(folder).output
    assert "level: method full, learning rate 0.0002, 3 epochs, optimiser adamw, trained on gaps and as much" in said
    assert "(method, learning_rate" in said
    monkeypatch.setattr(automatic, "TABLE", automatic.TABLE[1:])
    monkeypatch.setattr(automatic, "SMALL", 1)
    assert "learning rate 2e-05, vision frozen, 2 epochs" in asked(folder).output
    done = asked(folder, level={"method": "full", "learning_rate": 1e-3})
    assert done.exit_code == 1 and "far above the usual 2e-05" in done.output


def test_a_disk_too_full_for_checkpoints_is_a_problem(folder, monkeypatch):
    free = tiny_parameters(folder) * (4 * 12 + 2)  # three checkpoints and one being written, and the student
    assert asked(folder).exit_code == 0
    monkeypatch.setattr(doctor, "disk_usage", lambda place: SimpleNamespace(free=free - 1))
    done = asked(folder)
    assert done.exit_code == 1 and "training writes checkpoints of up to" in done.output
    monkeypatch.setattr(doctor, "disk_usage", lambda place: SimpleNamespace(free=free))
    assert asked(folder).exit_code == 0


def tiny_parameters(folder) -> int:
    return student_facts(str(folder / "student"), LoadingSettings()).parameters


def test_four_bits_are_of_the_language_model_in_plan_and_doctor_alike(folder, monkeypatch):
    monkeypatch.setattr(device, "find_spec", lambda name: name)
    told = json.loads(asked(folder, "--json", loading={"student": {"quantise": "4bit"}}).stdout)["models"][1]
    size = size_of(place_of(str(folder / "student"), LoadingSettings()), LoadingSettings())
    assert told["needs"] == round(costs.weight_bytes(size, "4bit", 4))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(open_config(str(folder / "student")))
    layers = sum(layer.weight.numel() for layer in model.get_decoder().modules() if isinstance(layer, torch.nn.Linear))
    assert told["needs"] == round(0.516 * layers + 4 * (size.parameters - layers))


def test_what_hinders_the_method_is_told_beside_what_hinders_the_model(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    (folder / "student" / "chat_template.jinja").unlink()
    done = asked(folder, level={"method": "lora"})
    assert "has no chat template" in done.output and "needs the package peft" in done.output


def test_a_model_that_does_not_fit_is_told_what_would_help():
    sizes = {"dtype": "float32", "device": "cpu", "attention": "sdpa", "files": 3 * GIGABYTE, "needs": 3 * GIGABYTE}
    large = doctor.ModelCheck("student", "hf:./student", family="Llava", **sizes, missing=0, has=GIGABYTE)
    assert large.fits is False
    told = "\n".join(doctor.doctor_lines(SMALL, [large]))
    assert "3.0 GB of 1.0 GB once loaded: does NOT fit: try dtype: bfloat16, quantise: 4bit" in told


@pytest.mark.parametrize(
    ("bfloat16", "version", "said"),
    [
        (False, "2.10.0", ["Old does not multiply bfloat16 in hardware"]),
        (True, "2.9.1+cu128", ["torch 2.9.1+cu128 is ten times slower"]),
        (True, "2.13.0", []),
    ],
)
def test_what_makes_a_card_slow_is_said_with_what_to_do(bfloat16, version, said):
    card = {"name": "Old", "memory": GIGABYTE, "bfloat16": bfloat16}
    there = replace(SMALL, gpus=[card], packages={"torch": version})
    told = [line.removeprefix("note: ") for line in doctor.doctor_lines(there, []) if line.startswith("note: ")]
    assert [line.startswith(begins) for line, begins in zip(told, said, strict=True)] == [True] * len(said)
    assert doctor.doctor_record(there, [])["machine"]["advice"] == told
    assert not [line for line in doctor.doctor_lines(replace(there, gpus=[]), []) if line.startswith("note: ")]


def test_a_gpu_that_another_process_uses_is_told(folder, monkeypatch):
    nvidia_smi(folder, ["GPU-a, 0, NVIDIA A10, 1024, 22528, 23553"], [f"GPU-a, {os.getppid()}, python, 22528"])
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    said = CliRunner().invoke(app, ["doctor"]).output.splitlines()[-1]
    assert said.startswith("note: GPU 0 (NVIDIA A10): 1.0 of 23.0 GiB free; 22.0 GiB held by process ")


def test_without_a_run_the_machine_alone_is_shown(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0 and done.output.startswith("machine: ") and len(done.output.splitlines()) == 3


@pytest.mark.parametrize("offline", [True, False])
def test_a_model_on_a_hub_out_of_reach_is_a_problem_in_words(folder, monkeypatch, offline):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    done = asked(folder, student="hf:someone/tiny")
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert "is not reachable" in done.output
    assert "problem: the model someone/tiny is missing or incomplete in the local cache" in done.output


PROXIES = {
    "socks://127.0.0.1:1": "the environment variable ALL_PROXY names a proxy of the kind socks://",
    "socks5://user:secret@127.0.0.1:1": "ALL_PROXY names a socks5 proxy, which needs the package socksio",
    "ftp://127.0.0.1:1": "Write http://HOST:PORT",
}


@pytest.mark.parametrize("address", PROXIES)
def test_a_proxy_that_cannot_be_used_is_told_by_its_variable(folder, monkeypatch, address):
    monkeypatch.setattr("parityalign.core.proxies.find_spec", lambda name: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setenv("ALL_PROXY", address)
    monkeypatch.delenv("all_proxy", raising=False)
    close_session()
    machine = CliRunner().invoke(app, ["doctor"])
    assert machine.exit_code == 0 and PROXIES[address] in machine.output and "not reachable" in machine.output
    model = asked(folder, student="hf:someone/tiny")
    assert model.exit_code == 1 and isinstance(model.exception, SystemExit)
    assert "problem: the hub cannot be asked for the model someone/tiny" in model.output
    assert "secret" not in machine.output + model.output
    close_session()


@pytest.mark.parametrize(
    ("says", "told", "status"),
    [
        (lambda body: str(len(str(body))), "answers, and sees pictures", 0),
        (lambda body: "blue", "does not see pictures", 1),
    ],
)
def test_a_served_teacher_is_asked_about_two_pictures_and_its_words_are_told(folder, monkeypatch, says, told, status):
    closed, close = [], AnswerStore.close
    monkeypatch.setattr(AnswerStore, "close", lambda self: closed.append(close(self)))

    async def script(body, _before):
        return reply(says(body))

    with serving(script) as served:
        done = asked(folder, teacher=f"{served.url}#m")
    assert closed == [None]
    assert told in done.stdout and done.exit_code == status
    assert 2 <= len(served.asked) <= 3


def test_a_server_that_nobody_answers_at_is_a_problem_at_once(folder):
    done = asked(folder, teacher="http://127.0.0.1:1/v1#any")
    assert "problem:" in done.stdout and "127.0.0.1:1" in done.stdout and done.exit_code == 1
