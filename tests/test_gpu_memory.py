"""A GPU that another process fills: messages name it, and blame nobody where nobody is to blame."""

import os
import subprocess
import sys

import pytest
import torch

from parityalign.core import WorkFailed
from parityalign.models.gpu_memory import with_who_holds_it
from parityalign.models.loading import in_words
from parityalign.training.oom import OomBackoff
from programs import nvidia_smi

ADVICE = "Take a smaller model."
FULL = "GPU-a, 0, NVIDIA A10, 1024, 22528, 23553"
RAN_OUT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23 GiB"


@pytest.fixture
def tells(tmp_path, monkeypatch):
    """Has NVIDIA's program, which stands at the head of PATH, tell of GPUs and processes."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return lambda gpus, apps, status=0: nvidia_smi(tmp_path, gpus, apps, status)


def test_a_model_in_this_process_that_finds_no_room_says_who_has_it(tells):
    tells([FULL], [f"GPU-a, {os.getppid()}, /bin/python, 22528"])
    with (
        pytest.raises(
            WorkFailed, match=f"GPU 0.*1.0 of 23.0 GiB free; 22.0 GiB held by process {os.getppid()} "
        ) as said,
        in_words("teacher", "a model from"),
    ):
        raise torch.OutOfMemoryError(RAN_OUT)
    assert "Another process holds memory there: wait until it has ended" in str(said.value)
    assert "dtype: bfloat16" in str(said.value)


def test_so_does_one_that_is_trained(tells):
    tells([FULL], [f"GPU-a, {os.getppid()}, /bin/python, 22528"])

    class Part:
        rows, size = [1], 10

    def work(parts):
        next(parts)
        raise torch.OutOfMemoryError(RAN_OUT)

    with pytest.raises(WorkFailed, match="22.0 GiB held by process(?s:.*)level.gradient_checkpointing"):
        OomBackoff(100)(lambda tokens: [Part()], work)


def test_where_this_machines_own_memory_ran_out_no_gpu_is_named(tells):
    tells([FULL], [f"GPU-a, {os.getppid()}, /bin/python, 22528"])
    with pytest.raises(WorkFailed, match="the model teacher does not fit") as said, in_words("teacher", "a model from"):
        raise MemoryError("can't allocate memory")
    assert "GPU 0" not in str(said.value)


def test_this_process_and_its_own_are_not_blamed(tells):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        tells([FULL], [f"GPU-a, {os.getpid()}, python, 12288", f"GPU-a, {child.pid}, python, 10240"])
        assert with_who_holds_it(ADVICE) == ADVICE
        child.stdin.close()


def test_where_the_driver_names_nobody_the_amount_is_told_and_may_be_this_runs(tells):
    tells([FULL], [])
    assert with_who_holds_it(ADVICE).splitlines() == [
        "GPU 0 (NVIDIA A10): 1.0 of 23.0 GiB free; 22.0 GiB held by processes that nvidia-smi does not name",
        "If that is not this run itself: wait until it has ended, end it, or use a GPU that is free: "
        "CUDA_VISIBLE_DEVICES=NUMBER in front of the command.",
        ADVICE,
    ]


def test_a_process_of_which_the_driver_says_no_amount_is_named_without_one(tells):
    tells([FULL], [f"GPU-a, {2**22 + 1}, C:\\run.exe, [N/A]"])  # no such number is given out
    assert f"; some held by process {2**22 + 1} (C:\\run.exe)\n" in with_who_holds_it(ADVICE)


def test_a_name_that_a_terminal_would_obey_is_written_out(tells):
    tells([FULL], [f"GPU-a, {os.getppid()}, \x1b[2J\x9b1m, 22528"])
    assert "(\\x1b[2J\\x9b1m)" in with_who_holds_it(ADVICE)


@pytest.mark.parametrize(
    ("gpus", "apps", "status"),
    [
        ([FULL], ["GPU-a, 1, python, 22528"], 9),  # no driver
        (["No devices were found"], [], 0),
        (["GPU-a, 0, NVIDIA A10, [N/A], [N/A], [N/A]"], [], 0),  # cut into parts
        ([FULL], ["GPU-b, 1, python, 22528"], 0),
        ([FULL], ["GPU-a, one, python, 22528"], 0),
        ([FULL.replace("1024", "22000").replace("22528", "600")], [], 0),
    ],
)
def test_the_advice_stands_alone_where_nothing_can_be_told(tells, gpus, apps, status):
    tells(gpus, apps, status)
    assert with_who_holds_it(ADVICE) == ADVICE


def test_so_it_does_without_the_program(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert with_who_holds_it(ADVICE) == ADVICE
