"""Replicas: several processes with one model answer as one does, whatever ends some of them."""

import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from threading import Event

import psutil
import pytest
import torch

import tiny
from makers import artifact
from parityalign.config import LoadingSettings, RunConfig
from parityalign.core import Decoding, RunFolder, ThisMachine, UserError, WorkFailed, at_work
from parityalign.engines import AnswerStore, Asked, CachedModel, ModelToLoad, Replicas, load_and_answer
from parityalign.engines import replicas as several
from parityalign.models import device
from parityalign.pipeline.run_models import RunModels
from working import backwards, dies, refuses

TWO = [{}, {}]
GREEDY = Decoding(8)


def questions(words):
    return [Asked(word, "", word, word) for word in words]


@pytest.fixture
def asked(tmp_path):
    """The words that were answered, each with the process that did."""
    return lambda: [tuple(line.split()) for line in (tmp_path / "asked").read_text().splitlines()]


def answered(folder, words, told, store=None, batch_size=2, where=TWO):
    store = store or AnswerStore()
    replicas = Replicas("backwards", ThisMachine(partial(backwards, folder), where), told.append, len(where))
    model = CachedModel("m", lambda: replicas, store)
    done = []
    try:
        said = model.answer(
            questions(words), decoding=GREEDY, batch_size=batch_size, on_progress=lambda *each: done.append(each)
        )
    finally:
        model.free()
    assert done[-1] == (len(words), len(words))
    return {word: each.not_asked or each.text for word, each in said.items()}


@pytest.mark.slow
def test_two_share_the_questions_and_nobody_can_tell(tmp_path, asked):
    words = [f"w{number}" for number in range(40)]
    told = []
    assert answered(tmp_path, words, told) == {word: word[::-1] for word in words}
    assert sorted(word for word, _ in asked()) == sorted(words)
    assert len({process for _, process in asked()}) == 2 and not told


@pytest.mark.slow
def test_what_a_process_had_when_it_was_killed_is_asked_elsewhere_and_nothing_twice(tmp_path, asked):
    words = [*(f"w{number}" for number in range(9)), "once", *(f"v{number}" for number in range(10))]
    told = []
    assert answered(tmp_path, words, told, batch_size=1) == {word: word[::-1] for word in words}
    assert sorted(word for word, _ in asked()) == sorted(words)
    assert len(told) == 1 and "ended by signal 9" in told[0]


@pytest.mark.slow
def test_a_question_that_ends_three_processes_is_set_aside_and_its_batch_is_answered(tmp_path, asked):
    told, store, words = [], AnswerStore(), ["a", "b", "deadly", "c", "d"]
    said = answered(tmp_path, words, told, store, batch_size=5)
    assert said.pop("deadly") == "declined: 3 processes ended while they were asked this"
    assert said == {word: word[::-1] for word in said}
    assert sum("ended by signal 9" in line for line in told) == 3 and "'deadly'" in told[-1]
    nobody = CachedModel("m", lambda: pytest.fail("a model was loaded"), store)
    nobody.answer(questions(words), decoding=GREEDY, batch_size=5, on_progress=lambda *_: None)


@pytest.mark.slow
def test_where_one_process_cannot_have_the_model_the_other_answers_everything(tmp_path):
    told, words = [], [f"x{number}" for number in range(6)]
    broken = [{"BROKEN": "1"}, {}]
    assert answered(tmp_path, words, told, where=broken) == {word: word[::-1] for word in words}
    assert len(told) == 1 and told[0].endswith("the others go on without it")


@pytest.mark.slow
def test_processes_that_go_on_ending_stop_the_work_and_what_was_answered_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(several, "_MOST_STARTED_AGAIN", 2)
    monkeypatch.setattr(several, "_EACH_AGAIN", 1)
    store, told = AnswerStore(), []
    words = ["a", "deadly"]
    with pytest.raises(WorkFailed, match=r"(?s)3 processes .*signal 9.*Answers so far are kept.*replicas"):
        answered(tmp_path, words, told, store, batch_size=1)
    known = CachedModel("m", lambda: pytest.fail("a model was loaded"), store)
    assert known.lacking(questions(["a"]), decoding=GREEDY) == 0


@pytest.mark.parametrize(
    ("work", "error", "said"),
    [
        (refuses, UserError, "^no such model: look again$"),
        (dies, WorkFailed, r"(?s)cannot be loaded in a process of its own: .*status 3.*the driver is missing"),
        (
            partial(load_and_answer, ModelToLoad("fake:nowhere.json", LoadingSettings(workers=0), 2, None)),
            UserError,
            "cannot read the fake model nowhere.json",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded_is_told_as_in_one_process(work, error, said):
    replicas = Replicas("fake:it", ThisMachine(work, TWO), lambda line: None)
    with pytest.raises(error, match=said):
        _ = replicas.name
    replicas.close()


PARENT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
sys.path[:0] = [{tests!r}]
from functools import partial
from pathlib import Path
from parityalign.core import Decoding, Request, ThisMachine
from parityalign.engines import Replicas
from working import backwards

replicas = Replicas("m", ThisMachine(partial(backwards, Path({folder!r})), [{{}}, {{}}]), print, 2)
list(replicas.answers([Request("", f"w{{number}}") for number in range(5)], Decoding(8), 1))
print("ready", flush=True)
input()
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_none_outlives_the_process_that_wanted_it(tmp_path, asked, end):
    code = PARENT.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout.readline() == b"ready\n"
    workers = [psutil.Process(int(process)) for _, process in asked()]
    assert len(set(workers)) == 2
    parent.send_signal(end)
    parent.wait()
    _, alive = psutil.wait_procs(set(workers), timeout=20)
    assert not alive


def asked_of_the_bundled_student(folder, images, ray=None, **loading):
    """What it says, and shows of what it is told, with how it ran."""
    config = RunConfig(
        run=folder,
        teacher="embedded:teacher",
        student="embedded:student",
        tasks={"vqa": {"images": "nowhere"}},
        loading={"student": {"workers": 0, **loading}},
        ray=ray,
    )
    words = [Asked(str(number), image, "What is written?", "") for number, image in enumerate(images)]
    made = artifact(folder)
    with RunFolder(folder) as run:
        models = RunModels(config, run, lambda ahead: None)
        models.begin("identify", made)
        said = models.student.answer(words, decoding=GREEDY, batch_size=2, on_progress=lambda *_: None)
        told = [(each, f"it says {each.item_id}") for each in words]
        seen = models.student.observe(told, batch_size=2, on_progress=lambda *_: None)
        models.close()
    return said, {key: [*map(repr, vars(each).values())] for key, each in seen.items()}, made.remembered["models"]


@pytest.mark.long
def test_a_bundled_model_in_two_processes_says_and_shows_what_it_does_in_one(tmp_path):
    images = tiny.drawn(tmp_path / "images", 9)
    *one, alone = asked_of_the_bundled_student(tmp_path / "one", images)
    *two, shared = asked_of_the_bundled_student(tmp_path / "two", images, replicas=2)
    assert two == one
    assert shared == {"before": {**alone["before"], "replicas": "2"}}


@pytest.mark.parametrize(
    ("visible", "gpus", "wanted", "devices"),
    [
        ("", 3, None, ["0", "1", "2"]),
        ("GPU-a, 5,7", 2, None, ["GPU-a", "5"]),  # torch counts those that it can use
        ("4,5", 2, 3, ["4", "5", "4"]),
        ("", 0, 2, [None, None]),
        ("", 0, None, [None]),
    ],
)
def test_each_process_sees_its_gpu_alone_and_has_its_share_of_the_cores(monkeypatch, visible, gpus, wanted, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(device, "usable_cores", lambda: 6)
    shares = device.shares_of_machine(wanted)
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in shares] == devices
    assert {share["OMP_NUM_THREADS"] for share in shares} == {str(6 // len(devices))}


def test_who_asks_no_more_leaves_no_process(tmp_path):
    replicas = Replicas("m", ThisMachine(partial(backwards, tmp_path), TWO), lambda line: None)
    first = next(replicas.answers([], GREEDY, 1), None)
    assert first is None and replicas.name == "backwards"
    worker = max(psutil.Process().children(), key=lambda process: process.create_time())
    replicas.close()
    assert not worker.is_running()


def test_messages_of_several_threads_arrive_whole(monkeypatch):
    ended = Event()
    monkeypatch.setattr(at_work, "_end", ended.set)
    ours, theirs = Pipe()
    post, size = at_work._Pipe(ours), 60_000

    def send(number):
        for _ in range(40):
            post.send([number] * (size if number % 2 else 3))

    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(send, number) for number in range(4)]
        got = Counter((numbers[0], len(numbers)) for numbers in (theirs.recv() for _ in range(160)))
        assert [each.result() for each in sent] == [None] * 4
    assert got == {(number, size if number % 2 else 3): 40 for number in range(4)}
    theirs.close()
    assert ended.wait(60)
