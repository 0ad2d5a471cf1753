"""Working ahead: pictures of what comes next are prepared while the model works, and how many threads do it changes
nothing but the time. What is waited for here has to happen; where it does not, the wait ends and the test fails."""

import os
import tracemalloc
from threading import Condition

import pytest
import torch
from safetensors.torch import load_file

import tiny
from parityalign.config.loading import LoadingSettings
from parityalign.config.training import LevelSettings
from parityalign.core.cores import wait_passively
from parityalign.core.errors import WorkFailed
from parityalign.core.interfaces import Decoding, Request
from parityalign.engines import Asked, cached
from parityalign.models import pictures
from parityalign.models.backends import hf
from parityalign.models.loading import AS_IT_IS
from parityalign.models.pictures import Pictures
from parityalign.training import collator, train
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.weighted_loss import WeightedLoss

SECONDS = 60
"""How long something may take that a busy machine has to get round to."""
STOP = [1]
ANSWERS = ("red", "green", "blue square")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(tiny.llava(tmp_path_factory.mktemp("student")))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.drawn(tmp_path_factory.mktemp("images"), 12)


class Opened:
    """The pictures that were opened, in order, and a way to wait for one."""

    def __init__(self, monkeypatch):
        self.paths, self._more, self._read = [], Condition(), pictures.read_image
        monkeypatch.setattr(pictures, "read_image", self._opens)

    def _opens(self, path):
        with self._more:
            self.paths.append(path)
            self._more.notify_all()
        return self._read(path)

    def waited_for(self, paths):
        with self._more:
            return self._more.wait_for(lambda: {*paths} <= {*self.paths}, SECONDS)


def level(student, images, out, *, workers=None, objective=tiny.ANSWER, **choices):
    settings = LevelSettings(**({"batch_size": 3, "epochs": 1, "learning_rate": 3e-3} | choices))
    make = train.make_leveller(
        student,
        {"toy": "{question}"},
        settings=settings,
        objective=objective,
        seed=3,
        progress=lambda *_: None,
        loading=LoadingSettings(workers=workers),
    )
    return make(tiny.pairs(images[:9], ANSWERS), tiny.pairs(images[9:], ANSWERS), out)


def test_the_levelled_student_is_the_same_with_any_number_of_workers(student, images, tmp_path):
    seen_twice = WeightedLoss({"answer": (1.0, 1.0), "consistency": (0.5, 0.5)})  # with augmented views
    results, weights = [], []
    for workers in (0, 1, 3):
        out = tmp_path / str(workers)
        results.append(level(student, images, out, workers=workers, objective=seen_twice))
        weights.append(load_file(out / "model.safetensors"))
    assert results[0].best_step > 0, "the student learnt, so there is something to compare"
    assert results[0] == results[1] == results[2]
    assert all(torch.equal(one[name], weights[0][name]) for one in weights for name in one)


def test_a_steps_pictures_are_opened_while_the_model_is_at_the_step_before(student, images, tmp_path, monkeypatch):
    opened, waited = Opened(monkeypatch), []

    def at_a_step(loss, batch):
        if torch.is_grad_enabled() and len(waited) < 2:  # in training, of whose three steps the last has no next
            trained_on = {*images[:9]}
            count = 3 * (len(waited) + 2)
            with opened._more:
                waited.append(opened._more.wait_for(lambda: len({*opened.paths} & trained_on) >= count, SECONDS))
        return loss

    level(student, images, tmp_path / "out", workers=1, objective=tiny.Changed(at_a_step))
    assert waited == [True, True]


def test_a_look_at_the_held_out_pairs_opens_the_next_pictures_meanwhile(images, monkeypatch):
    opened = Opened(monkeypatch)
    batches = AnswerCollator(tiny.processor(), STOP, workers=1)
    parts = batches.ahead([Example(path, "what", "red") for path in images], 4)
    next(parts)
    assert opened.waited_for(images[4:8])
    assert not {*images[8:]} & {*opened.paths}


def asked(paths, batch):
    return [Asked(f"{batch} {place}", path, "what is the colour", "", path) for place, path in enumerate(paths)]


@pytest.mark.parametrize("how", ["generate", "observe"])
def test_the_next_batchs_pictures_are_opened_while_the_model_answers_or_is_scored(student, images, monkeypatch, how):
    model, opened, waited = hf.load(student, LoadingSettings(workers=1)), Opened(monkeypatch), []
    work = model._model.generate if how == "generate" else model._observing.observe

    def works(*args, **kwargs):
        waited.append(opened.waited_for(images[: 4 * (len(waited) + 2)]))
        return work(*args, **kwargs)

    monkeypatch.setattr(*((model._model, "generate") if how == "generate" else (model._observing, "observe")), works)
    questions, quiet = asked(images, 0), lambda *_: None
    if how == "generate":
        cached(model).answer(questions, decoding=Decoding(1), batch_size=4, on_progress=quiet)
    else:
        cached(model).observe([(each, "red") for each in questions], batch_size=4, on_progress=quiet)
    assert waited == [True] * 3


def test_with_no_workers_a_picture_is_prepared_where_it_is_needed(student, images, monkeypatch):
    opened = Opened(monkeypatch)
    model = hf.load(student, LoadingSettings(workers=0))
    requests = [Request(path, "what") for path in images]
    model.expect(requests[4:])
    alone = model.generate(requests[:4], Decoding(1))
    assert opened.paths == images[:4]
    assert alone + model.generate(requests[4:], Decoding(1)) == hf.load(student, AS_IT_IS).generate(
        requests, Decoding(1)
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_told_where_its_step_is_taken(images, tmp_path, workers):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    batches = AnswerCollator(tiny.processor(), STOP, workers=workers)
    begun = batches.begin([Example(str(tmp_path / "broken.png"), "what", "red")])
    with pytest.raises(WorkFailed, match="broken.png"):
        batches.rows(begun)


def test_a_picture_in_two_steps_is_prepared_once_while_either_needs_it(images, monkeypatch):
    opened = Opened(monkeypatch)
    prepares = Pictures(collator.LabelEncoder(tiny.processor(), STOP).prompter, 1)
    first, second = (prepares.begin(images[0], prompt) for prompt in ("what", "shape"))
    assert first is second
    row = prepares.row(images[0], second.result(), "shape")
    assert row.tokens == prepares._prompter.encode(pictures.read_image(images[0]), "shape").tokens
    assert opened.paths == [images[0]] * 2  # the second is this test's own


@pytest.mark.parametrize(
    ("said", "then"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "9"}, None)]
)
def test_threads_wait_passively_unless_the_environment_says_how(monkeypatch, said, then):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, said[name]) if name in said else monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # what is set here ends with the test
    wait_passively()
    assert os.environ.get("OMP_WAIT_POLICY") == then


def test_memory_does_not_grow_with_the_number_of_examples(images, monkeypatch):
    monkeypatch.setattr(collator, "_ROWS_BYTES", 10_000)
    monkeypatch.setattr(pictures, "_PROMPTS_KEPT", 20)
    batches = AnswerCollator(tiny.processor(), STOP, workers=0, cache_bytes=8 * 3 * tiny.SIDE**2)
    examples = (Example(images[n % 12], f"what {n}", "red", str(n)) for n in range(600))

    def train_on(count):
        for _ in range(count // 40):
            batches([next(examples) for _ in range(40)])

    train_on(200)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        train_on(400)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 400 * 300, "bytes: less than one list of tokens of each of 400 examples would take"
