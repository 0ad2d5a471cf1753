"""Disks that fill up, and checkpoints that are damaged: words, and work goes on from what is sound."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityalign.core import UserError, WorkFailed, disk_faults_in_words, sealed, unsealed
from parityalign.engines import AnswerStore, KnownModel, Spent
from parityalign.models.backends import fake
from parityalign.training import checkpoints
from projects import configure, done, parityalign

# Disks

WRITERS = {
    "python": "open(path, 'wb', buffering=0).write(bytes(9_000)); import os; os.write(os.open(path, 1 | 1024), b'x')",
    "safetensors": "import safetensors.torch as s; s.save_file({'a': torch.zeros(9_000)}, path)",
    "torch": "torch.save({'a': torch.zeros(9_000)}, path)",
    "tokenizers": """
from tokenizers import Tokenizer, models
Tokenizer(models.WordLevel({str(n): n for n in range(9_000)}, '0')).save(path)""",
    "pillow": "from PIL import Image; Image.effect_noise((200, 200), 99).save(path, 'png')",
    "sqlite": """
import sqlite3
with sqlite3.connect(path) as file:
    file.execute('create table a (b)')
    file.execute('insert into a values (?)', ('x' * 90_000,))""",
    "pyarrow": "import pyarrow as pa, pyarrow.parquet as pq; pq.write_table(pa.table({'a': range(90_000)}), path)",
}
SMALL_FILES = """
import resource, sys
import torch
from parityalign.core import WorkFailed, disk_faults_in_words
writers = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
for library, program in writers.items():
    try:
        with disk_faults_in_words():
            exec(program, {"torch": torch, "path": f"{sys.argv[2]}/{library}"})
    except WorkFailed as problem:
        print(library, problem.args[0].replace("\\n", " "))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the size of files has no limit there")
def test_whatever_a_library_raises_where_a_file_cannot_grow_becomes_words(tmp_path):
    program = ["-c", f"import json\n{SMALL_FILES}", json.dumps(WRITERS), tmp_path]
    ended = subprocess.run([sys.executable, *program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    told = dict(line.split(" ", 1) for line in ended.stdout.splitlines())
    assert told.keys() == WRITERS.keys()
    assert all(text.startswith("the disk refused ") and "free some space" in text for text in told.values())


@pytest.mark.parametrize("error", [ValueError("no"), FileNotFoundError(2, "No such file"), UserError("asked wrongly")])
def test_an_error_about_something_else_goes_through_as_it_is(error):
    with pytest.raises(type(error)) as raised, disk_faults_in_words():
        raise error
    assert raised.value is error


def test_an_error_that_another_one_led_to_is_about_the_disk_too(tmp_path):
    with pytest.raises(WorkFailed, match="the disk refused .*x.bin: No space left on device"), disk_faults_in_words():
        try:
            raise OSError(28, "No space left on device", str(tmp_path / "x.bin"))
        except OSError as problem:
            raise RuntimeError("could not save") from problem


# Checkpoints

STEPS = (10, 20, 30)


def checkpoint(work, step, best):
    folder = checkpoints.checkpoint(work, step)
    folder.mkdir(parents=True)
    state = {"global_step": step, "best_global_step": best, "best_metric": 1.0}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    (folder / "optimizer.pt").write_bytes(bytes(100))
    checkpoints.complete(folder)
    return folder


FILES = ("trainer_state.json", "optimizer.pt", checkpoints.COMPLETE)
DAMAGES = {
    "empty": lambda file: file.write_bytes(b""),
    "flipped": lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
    "gone": lambda file: file.unlink(),
}


@given(
    damaged=st.dictionaries(st.sampled_from(STEPS), st.tuples(st.sampled_from(FILES), st.sampled_from([*DAMAGES]))),
    bests=st.tuples(st.just(10), st.sampled_from([10, 20]), st.sampled_from([10, 20, 30])),
)
def test_training_goes_on_from_the_newest_checkpoint_that_is_sound_and_whose_best_is(tmp_path_factory, damaged, bests):
    work = tmp_path_factory.mktemp("work")
    for step, best in zip(STEPS, bests, strict=True):
        checkpoint(work, step, best)
    for step, (name, how) in damaged.items():
        DAMAGES[how](checkpoints.checkpoint(work, step) / name)
    told = []
    found = checkpoints.newest_sound(work, told.append)
    best = dict(zip(STEPS, bests, strict=True))
    usable = [step for step in STEPS if not {step, best[step]} & damaged.keys()]
    assert found == (checkpoints.checkpoint(work, usable[-1]) if usable else None)
    skipped = [step for step in STEPS if step > max(usable, default=0)]
    # What was never whole is what a kill leaves, and no news.
    news = [step for step in skipped if damaged.get(step) != (checkpoints.COMPLETE, "gone")]
    assert len(told) == bool(news)
    for text in told:
        assert all(f"of step {step} cannot be used" in text for step in news)
        assert ("from the beginning" in text) == (not usable)
        assert usable or "from step" not in text
    assert not any(checkpoints.checkpoint(work, step).exists() for step in skipped)


@pytest.mark.long
@pytest.mark.parametrize("damaged", ["newest", "all"])
def test_a_training_with_a_damaged_checkpoint_ends_with_the_weights_of_a_sound_one(tmp_path, monkeypatch, damaged):
    import tiny
    from parityalign.config import LevelSettings
    from parityalign.training import train

    class Killed(BaseException):
        pass

    class Watcher:
        def __init__(self):
            self.steps, self.told = [], []

        def __call__(self, _step, done, _total):
            self.steps.append(done)

        def say(self, text):
            self.told.append(text)

        def confirm(self, _question):
            return True

    def kill(*_args, **_kwargs):
        raise Killed

    student = str(tiny.fast_vlm(tmp_path / "student"))
    pairs = tiny.pairs(tiny.drawn(tmp_path / "images", 6), ["red", "blue"])
    watcher = Watcher()
    settings = LevelSettings(batch_size=2, max_steps=16, learning_rate=1e-3)
    level = train.make_leveller(
        student, {"toy": "{question}"}, settings=settings, objective=tiny.ANSWER, seed=3, progress=watcher
    )
    whole = level(pairs[:4], pairs[4:], tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(train, "save_student", kill)
        with pytest.raises(Killed):
            level(pairs[:4], pairs[4:], tmp_path / "out")
    kept = sorted((tmp_path / ".out.training").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    for folder in kept if damaged == "all" else kept[-1:]:
        (folder / "optimizer.pt").write_bytes(b"")
    watcher.steps.clear()
    assert level(pairs[:4], pairs[4:], tmp_path / "out") == whole
    assert ("from the beginning" if damaged == "all" else f"from step {kept[-2].name[11:]}") in watcher.told[0]
    assert watcher.steps[0] == (1 if damaged == "all" else int(kept[-2].name[11:]) + 1)
    weights = [(tmp_path / each / "model.safetensors").read_bytes() for each in ("whole", "out")]
    assert weights[0] == weights[1]


# What holds a digest of itself


@given(
    st.dictionaries(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists, max_leaves=5), max_size=4),
    st.data(),
)
def test_a_sealed_object_is_what_it_was_until_something_in_it_changes(content, data):
    written = json.dumps(sealed(content))
    assert json.dumps(unsealed(json.loads(written)), sort_keys=True) == json.dumps(
        {key: value for key, value in content.items() if key != "seal"}, sort_keys=True
    )
    changed = {**json.loads(written), data.draw(st.text().filter(lambda key: key != "seal")): "something else"}
    if changed != json.loads(written):
        with pytest.raises(ValueError, match="differs from the digest"):
            unsealed(changed)


def test_a_damaged_row_of_a_model_or_of_what_was_spent_is_as_if_it_were_not_there(tmp_path):
    path = tmp_path / "answers.sqlite"
    known = KnownModel("teacher", frozenset({"<image>"}))
    with closing(AnswerStore(path, run="r")) as store:
        store.begin_stage("annotate")
        store.remember_model("a", known)
        for _ in range(2):
            store.keep("a", {}, Spent(answers=3))
    with sqlite3.connect(path) as file:
        file.execute("UPDATE models SET name = 'teechor'")
        file.execute("UPDATE spent SET counts = '{\"answers\": 9}' WHERE rowid = 1")
    with closing(AnswerStore(path, run="r")) as store:
        assert store.model("a") is None  # it is looked at again
        store.remember_model("a", known)
        assert store.model("a") == known
        assert store.spent()["annotate", "teacher"].answers == 3


# Kills


class Killed(BaseException):
    """Ends a run as abruptly as Python allows."""


class Kills:
    """Kills at a point of a run: a file was synced, or answers are about to be kept, or were.

    Attributes:
        points: Those that were passed; of one that a run was killed at, the last.
        asked: How often each question was asked.
    """

    def __init__(self, patch):
        self.points, self.asked, self.left = [], Counter(), -1
        keep, generate = AnswerStore.keep, fake.FakeModel.generate

        def kept(store, *given):
            self.passed("unkept")
            keep(store, *given)
            self.passed("kept")

        def counted(model, requests, decoding):
            for request in requests:
                self.asked[model.name, Path(request.image).name, request.prompt, request.seed] += 1
            return generate(model, requests, decoding)

        patch.setattr(AnswerStore, "keep", kept)
        patch.setattr(fake.FakeModel, "generate", counted)
        patch.setattr("os.fsync", lambda file: self.passed("synced"))

    def passed(self, point):
        self.points.append(point)
        self.left -= 1
        if not self.left:
            raise Killed


def test_a_run_that_is_killed_at_any_write_asks_nothing_twice_but_the_batch_that_was_not_kept(
    project, trainable, monkeypatch
):
    monkeypatch.setattr("gc.collect", lambda: 0)  # slow among pytest's many objects
    kills = Kills(monkeypatch)
    done("run", configure(project, run="runs/whole"))
    points = list(kills.points)
    assert set(kills.asked.values()) == {1}
    synced = [number for number, point in enumerate(points, 1) if point == "synced"]
    kept = [number for number, point in enumerate(points, 1) if point != "synced"]
    for number in (*synced[:: len(synced) // 4], *kept[:: len(kept) // 6]):
        config = configure(project, run=f"runs/{number}")
        kills.asked.clear()
        kills.left = number
        with pytest.raises(Killed):
            parityalign("run", config)
        done("run", config)
        twice = sum(count - 1 for count in kills.asked.values())
        assert twice <= (3 if points[number - 1] == "unkept" else 0), f"killed at {points[number - 1]} {number}"
