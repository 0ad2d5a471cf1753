"""Levelling in several processes ends where one does: in losses, in weights, short of memory and killed."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

import tiny
from makers import mute
from parityalign.config.training import LevelSettings, LrMultipliers
from parityalign.core.errors import UserError, WorkFailed
from parityalign.training import tower, train, trainer
from parityalign.training.weighted_loss import WeightedLoss

ANSWERS = ("red", "green", "blue square")
STEPS = 20


levelled, opened = train._levelled, train.open_trainable


def exactly(*training):
    """Levels in float64: what is rounded in bfloat16 differs by a hundredth of the loss if a sum's last bit does, and
    Adam makes a whole step of a gradient that is nothing but rounding."""
    trainer.bf16_is_fast = lambda on_gpu: False
    tower.SMALLEST_TOWER = 1
    train.open_trainable = lambda *told, **how: opened(*told, **how).double()
    return levelled(*training)


def in_both_ways(training, work, out, ranks, progress):
    """All weights and then an adapter, in the same processes: to start them takes longest."""
    ranks.leave = ranks.wait
    first = exactly(training, work, out, ranks, progress)
    adapter = work.with_name(".lora.training")
    adapter.mkdir(exist_ok=True)
    (adapter / train.PLAN).touch()
    settings = training.settings.model_copy(update={"method": "lora"})
    exactly(replace(training, settings=settings), adapter, out.with_name("lora"), ranks, Lora(progress))
    return first


class Lora:
    """What is measured of the second training."""

    def __init__(self, progress):
        self.progress = progress

    def __call__(self, step, done, total):
        pass

    def measured(self, what, step, value):
        if hasattr(self.progress, "measured"):
            self.progress.measured(f"lora {what}", step, value)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Here and in the processes that are started."""
    monkeypatch.setattr(trainer, "bf16_is_fast", trainer.bf16_is_fast)
    monkeypatch.setattr(tower, "SMALLEST_TOWER", tower.SMALLEST_TOWER)
    monkeypatch.setattr(train, "open_trainable", opened)
    monkeypatch.setattr(train, "_levelled", exactly)


class ShortOfMemory(WeightedLoss):
    """The paper's objective, where the second process has no memory for two rows."""

    def __call__(self, model, batch, done=1.0):
        if model.training and dist.is_initialized() and dist.get_rank() == 1 and len(batch["input_ids"]) > 1:
            raise torch.OutOfMemoryError
        return super().__call__(model, batch, done)


class Watching:
    """Keeps what is measured, and does something at a step."""

    def __init__(self, at=None, does=lambda: None):
        self.measures, self.at, self.does = {}, at, does

    def __call__(self, step, done, total):
        if done == self.at:
            self.does()

    def measured(self, what, step, value):
        if "loss" in what:  # others are of the machine's speed
            self.measures[what, step] = value


class Saying(Watching):
    """Keeps the lines that it is told, too."""

    def __init__(self):
        super().__init__()
        self.said = []

    def say(self, text):
        self.said.append(text)

    def confirm(self, question):
        return True


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(tiny.llava(tmp_path_factory.mktemp("student")))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny.pairs(tiny.drawn(tmp_path_factory.mktemp("images"), 12), ANSWERS)


def level(student, pairs, out, progress, objective=tiny.ANSWER, **settings):
    """Nine pairs, so that the last step of an epoch has one, and the second process none of it."""
    chosen = {"batch_size": 4, "max_steps": STEPS, "learning_rate": 1e-3, "method": "full", **settings}
    make = train.make_leveller(
        student, {"toy": "{question}"}, settings=LevelSettings(**chosen), objective=objective, seed=3, progress=progress
    )
    return make(pairs[:9], pairs[9:], out)


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def distance(one, other):
    return max(float((one[key] - other[key]).abs().max()) for key in one)


@pytest.mark.long
def test_two_processes_measure_and_learn_what_one_does(student, pairs, tmp_path, monkeypatch):
    alone, together, adapter = Watching(), Watching(), Watching()
    one = level(student, pairs, tmp_path / "one", alone)
    level(student, pairs, tmp_path / "adapter", adapter, method="lora")
    monkeypatch.setattr(train, "_levelled", in_both_ways)
    two = level(student, pairs, tmp_path / "two", together, ShortOfMemory({"answer": (1.0, 1.0)}), processes=2)
    assert (
        (two.steps, two.best_step) == (STEPS, one.best_step)
        and two.micro_batch_tokens
        and one.micro_batch_tokens is None
    )
    expected = alone.measures | {(f"lora {what}", step): value for (what, step), value in adapter.measures.items()}
    assert together.measures.keys() == expected.keys() and len(expected) == 2 * len(alone.measures)
    for key, value in expected.items():
        assert together.measures[key] == pytest.approx(value, rel=1e-6)
    before = weights_of(Path(student))
    for single, double in (("one", "two"), ("adapter", "lora")):
        after = weights_of(tmp_path / single)
        assert distance(weights_of(tmp_path / double), after) < 1e-6 < distance(before, after)


@pytest.mark.long
def test_two_processes_whose_towers_look_at_their_own_pictures_learn_what_one_does(student, pairs, tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        level(student, pairs, tmp_path / name, mute, processes=processes, lr_multipliers=LrMultipliers(vision=0))
    assert distance(weights_of(tmp_path / "one"), weights_of(tmp_path / "two")) < 1e-6


@pytest.mark.long
def test_two_processes_that_divide_the_student_end_where_one_does_and_each_goes_on_from_the_others(
    student, pairs, tmp_path
):
    """Nine pairs in steps of four: at the end of an epoch the first process has none, and other micro-batches."""

    def kill():
        raise KeyboardInterrupt

    alone, together = Watching(), Watching()
    level(student, pairs, tmp_path / "one", alone, max_steps=6)
    shared = {"processes": 2, "sharded": True, "max_steps": 6}
    level(student, pairs, tmp_path / "two", together, micro_batch_size=1, **shared)
    assert together.measures.keys() == alone.measures.keys()
    for key, value in alone.measures.items():
        assert together.measures[key] == pytest.approx(value, rel=1e-6)
    expected = weights_of(tmp_path / "one")
    assert distance(weights_of(tmp_path / "two"), expected) < 1e-6 < distance(weights_of(Path(student)), expected)
    for first, then in ((shared, {"max_steps": 6}), ({"max_steps": 6}, shared)):
        out = tmp_path / f"cut {first['max_steps'] if 'sharded' in first else 'whole'}"
        with pytest.raises(KeyboardInterrupt):
            level(student, pairs, out, Watching(4, kill), **first)
        rest = Watching()
        level(student, pairs, out, rest, **then)
        assert min(step for what, step in rest.measures if what == "training loss") > 1
        assert distance(weights_of(out), expected) < 1e-6


@pytest.mark.long
def test_where_memory_runs_out_in_one_that_divides_the_student_all_begin_anew(student, pairs, tmp_path):
    lines = Saying()
    objective = ShortOfMemory({"answer": (1.0, 1.0)})
    two = level(student, pairs, tmp_path / "two", lines, objective, processes=2, sharded=True, max_steps=2)
    assert two.steps == 2 and two.micro_batch_tokens
    assert any("memory ran out" in line for line in lines.said)
    level(student, pairs, tmp_path / "one", Watching(), max_steps=2)
    assert distance(weights_of(tmp_path / "two"), weights_of(tmp_path / "one")) < 1e-6


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"method": "lora"}, "method: full"),
        ({"method": "full", "optimiser": "adafactor"}, "optimiser: adamw"),
        ({"method": "full", "objective": {"answer": 1, "reasoning": 1}}, "rationales or further views"),
    ],
)
def test_what_cannot_be_divided_is_refused(said, words):
    with pytest.raises(ValueError, match=words):
        LevelSettings(sharded=True, **said)


@pytest.mark.slow
def test_a_training_goes_on_from_weights_whose_files_name_them_otherwise(student, pairs, tmp_path):
    """As LLaVA's do: `language_model.lm_head` there is `lm_head` in the model."""

    def kill():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        level(student, pairs, tmp_path / "cut", Watching(3, kill), max_steps=5)
    level(student, pairs, tmp_path / "cut", Watching(), max_steps=5)
    level(student, pairs, tmp_path / "whole", Watching(), max_steps=5)
    assert distance(weights_of(tmp_path / "cut"), weights_of(tmp_path / "whole")) == 0


@pytest.mark.kills
def test_a_killed_rank_ends_all_and_one_process_goes_on_to_the_same_end(student, pairs, tmp_path):
    def kill():
        workers = psutil.Process().children()
        assert len(workers) == 2
        os.kill(max(each.pid for each in workers), signal.SIGKILL)

    with pytest.raises(WorkFailed, match=r"(?s)levelling in 2 processes stopped: .*signal 9.*last checkpoint is kept"):
        level(student, pairs, tmp_path / "two", Watching(10, kill), processes=2)
    assert not psutil.Process().children()
    work = tmp_path / ".two.training"
    assert (work / "checkpoint-6" / "complete").exists()  # and perhaps the one of step 9
    told = Watching()
    level(student, pairs, tmp_path / "two", told)
    assert min(step for what, step in told.measures if what == "training loss") in (7, 10)
    level(student, pairs, tmp_path / "one", Watching())
    assert distance(weights_of(tmp_path / "two"), weights_of(tmp_path / "one")) < 1e-6
    assert not work.exists()


PARENT = """
import sys
sys.path[:0] = [{tests!r}]
import os, signal
from pathlib import Path
import psutil
import tiny
from test_ranks import ANSWERS, Watching, level

def end():
    print(*(each.pid for each in psutil.Process().children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

folder = Path({folder!r})
pairs = tiny.pairs(tiny.drawn(folder / "images", 12), ANSWERS)
level({student!r}, pairs, folder / "out", Watching(2, end), processes=2)
"""


@pytest.mark.kills
def test_no_rank_outlives_a_run_that_is_killed(student, tmp_path):
    code = PARENT.format(tests=str(Path(__file__).parent), folder=str(tmp_path), student=student)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == -signal.SIGKILL, told.stderr
    ranks = [int(number) for number in told.stdout.split()]
    assert len(ranks) == 2
    left = [psutil.Process(number) for number in ranks if psutil.pid_exists(number)]
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive


@pytest.mark.kills
def test_what_one_rank_cannot_do_is_told_as_by_one_process(student, pairs, tmp_path):
    missing = [*pairs]
    Path(shutil.copy(pairs[1].image, tmp_path / "gone.png")).unlink()
    missing[1] = pairs[1].model_copy(update={"image": str(tmp_path / "gone.png")})
    with pytest.raises(UserError, match="gone.png"):
        level(student, missing, tmp_path / "two", Watching(), processes=2)
    assert not psutil.Process().children()
