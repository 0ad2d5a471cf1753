"""A frozen tower looks at each picture once: the student learns what it would if it looked each time."""

from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file

import tiny
from families import FAMILIES, write
from makers import mute
from newer_families import LONG_FAMILIES
from parityalign.config.loading import LoadingSettings
from parityalign.config.training import LevelSettings, LrMultipliers
from parityalign.models.encoding import stop_tokens
from parityalign.models.loading import open_model, open_processor
from parityalign.training import tower, train, trainer
from parityalign.training.bundles import Bundle
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.losses._joining import Signals
from parityalign.training.sharing import tried_sharing, tried_tower
from parityalign.training.student import open_trainable
from parityalign.training.weighted_loss import WeightedLoss

AS_IT_IS = LoadingSettings()
ROOM = 2**30
NOT_TAKEN_APART = {"MiniCPM-V 4.6", "Ovis2", "Molmo2", "Granite 4 Vision", "Gemma 4"}
"""Families whose tower cannot be frozen alone."""
ALL = [
    *FAMILIES,
    *(pytest.param(each, marks=pytest.mark.long) for each in LONG_FAMILIES if each.name not in NOT_TAKEN_APART),
]
ANSWERS = ("red", "a blue square", "green", "42")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.drawn(tmp_path_factory.mktemp("images"), 4, sizes=((60, 60), (90, 40)))


@pytest.fixture(scope="module")
def examples(images):
    asked = zip(images, ANSWERS, strict=True)
    return [Example(image, "what is it", answer, str(number)) for number, (image, answer) in enumerate(asked)]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(tiny.fast_vlm(tmp_path_factory.mktemp("student")))


def opened(folder, method="full", vision=0.0):
    rates = LrMultipliers(vision=vision)
    settings = LevelSettings(method=method, lr_multipliers=rates, learning_rate=1e-3, epochs=1)
    processor, model = open_processor(folder), open_trainable(folder, AS_IT_IS, settings, half=False)
    return model, AnswerCollator(processor, stop_tokens(processor.tokenizer, open_model(folder).generation_config))


def learnt(model, batches, examples):
    """The loss of a step, and its gradients."""
    model.train()
    for module in model.modules():
        module.training &= not isinstance(module, torch.nn.BatchNorm2d)  # as in training
    model.zero_grad()
    rows = batches.rows(batches.begin(examples))
    sharing = tried_sharing(model, batches, examples)
    loss = tiny.ANSWER(model, batches.batch([Bundle([row], 0, 0, 0) for row in rows], sharing))
    loss.backward()
    return float(loss.detach()), [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


def same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-4)
    for mine, its in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.long)])
def test_loss_and_gradients_are_those_of_a_student_that_looks(tmp_path, examples, family, method):
    model, batches = opened(str(write(tmp_path / "model", family)), method)
    looking = learnt(model, batches, examples)
    batches.tower = tried_tower(model, batches, examples, ROOM)
    assert batches.tower
    for _ in range(2):
        same(learnt(model, batches, examples), looking)


def test_pictures_whose_outputs_cannot_follow_each_other_are_looked_at_again(student, examples, monkeypatch):
    model, batches = opened(student)
    looking = learnt(model, batches, examples)
    batches.tower = tried_tower(model, batches, examples, ROOM)
    monkeypatch.setattr(batches.tower, "joined", lambda *_: None)
    for _ in range(2):
        same(learnt(model, batches, examples), looking)
    assert batches.tower.gave_up


@pytest.mark.parametrize("fault", ["learns", "says something else", "fails", "mixes pictures up", "has no layers"])
def test_a_student_that_cannot_do_without_its_tower_looks_each_time(student, examples, monkeypatch, fault):
    model, batches = opened(student, vision=fault == "learns")
    if fault == "says something else":
        monkeypatch.setattr(tower.FrozenTower, "left_out", lambda *_: nullcontext())  # it is shown blank pictures
    if fault == "has no layers":
        monkeypatch.setattr(tower.nn, "ModuleList", torch.nn.Transformer)
    if fault == "fails":
        monkeypatch.setattr(tower, "_axis", lambda *_: 7)
    if fault == "mixes pictures up":
        joined = tower.FrozenTower.joined
        monkeypatch.setattr(tower.FrozenTower, "joined", lambda self, given, device: joined(self, given[::-1], device))
    assert tried_tower(model, batches, examples, ROOM) is None
    assert batches.tower is None


# In a training


@pytest.fixture(scope="module")
def pairs(images):
    return tiny.pairs(images * 2, ANSWERS)


def level(student, pairs, out, *, objective=tiny.ANSWER, progress=mute, **choices):
    settings = LevelSettings(
        **{"batch_size": 3, "epochs": 3, "learning_rate": 3e-3, "lr_multipliers": LrMultipliers(vision=0)} | choices
    )
    made = train.make_leveller(
        student, {"toy": "{question}"}, settings=settings, objective=objective, seed=3, progress=progress
    )
    made(pairs[:6], pairs[6:], out)
    return load_file(out / "model.safetensors")


@pytest.fixture
def looks(monkeypatch):
    """How many pictures each look of a tower was at."""
    found, plain = [], tower.FrozenTower._all_states
    monkeypatch.setattr(
        tower.FrozenTower,
        "_all_states",
        lambda self, model, pictures, ends=None: found.append(len(pictures)) or plain(self, model, pictures, ends),
    )
    return found


TRIAL = [1, 1, 1, 1, 2]
"""Looks of the trial."""


@pytest.mark.slow
def test_each_picture_is_looked_at_once_in_all_epochs_and_looks(student, images, pairs, tmp_path, looks):
    level(student, pairs, tmp_path / "out")
    assert looks == [*TRIAL, *[1] * len(images)]


@pytest.mark.slow
def test_where_there_is_no_room_each_look_comes_to_the_same_bits(student, pairs, tmp_path, looks, monkeypatch):
    kept = level(student, pairs, tmp_path / "kept")
    monkeypatch.setattr(tower, "KEPT_BYTES", 0)
    looks.clear()
    looked = level(student, pairs, tmp_path / "looked")
    assert len(looks) > 30
    assert all(torch.equal(kept[name], looked[name]) for name in kept)


@pytest.mark.slow
def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(student, pairs, tmp_path):
    whole = level(student, pairs, tmp_path / "whole")

    def killer(_, done, __):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        level(student, pairs, tmp_path / "out", progress=killer)
    resumed = level(student, pairs, tmp_path / "out")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("room", [0, 2**30])
def test_a_killed_training_with_an_adapter_and_dropout_in_bfloat16_ends_as_an_uninterrupted_one(
    tmp_path, pairs, monkeypatch, looks, room, checkpointing
):
    monkeypatch.setattr(trainer, "bf16_is_fast", lambda on_gpu: True)
    monkeypatch.setattr(train, "_halves", lambda: True)
    monkeypatch.setattr(tower, "KEPT_BYTES", room)
    student = str(tiny.llava(tmp_path / "student"))
    choices = {"method": "lora", "lora_dropout": 0.3, "gradient_checkpointing": checkpointing, "epochs": 4}
    whole = level(student, pairs, tmp_path / "whole", **choices)
    assert looks[: len(TRIAL)] == TRIAL and len(looks) > len(TRIAL)

    def killer(_, done, __):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        level(student, pairs, tmp_path / "out", progress=killer, **choices)
    resumed = level(student, pairs, tmp_path / "out", **choices)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("terms", [{"consistency": 1.0}, {"reasoning": 1.0}, {"consistency": 1.0, "reasoning": 1.0}])
def test_augmented_pictures_are_looked_at_and_rationales_share_what_was_seen(
    student, pairs, tmp_path, monkeypatch, terms
):
    told = {pair.pair_id: ("why?", "Explanation: a. Answer: b") for pair in pairs}
    weights = {term: (weight, weight) for term, weight in {"answer": 1.0, **terms}.items()}
    objective = WeightedLoss(weights, signals=Signals({}, {}, told, "", None))
    kept = level(student, pairs, tmp_path / "kept", objective=objective, max_steps=2, interpolate=False)
    monkeypatch.setattr(trainer, "tried_tower", lambda *_, **__: None)
    looking = level(student, pairs, tmp_path / "looking", objective=objective, max_steps=2, interpolate=False)
    for name in kept:
        torch.testing.assert_close(kept[name], looking[name], rtol=1e-3, atol=1e-3)
