"""A frozen tower looks at each picture once: the student learns what it would if it looked each time."""

from contextlib import nullcontext
from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Blip2Config, Blip2ForConditionalGeneration

import tiny
from families import FAMILIES, write
from makers import mute
from newer_families import LONG_FAMILIES
from parityalign.config.loading import LoadingSettings
from parityalign.config.training import LevelSettings, LrMultipliers
from parityalign.models.encoding import Encoded, stop_tokens
from parityalign.models.loading import open_model, open_processor
from parityalign.training import tower, train, trainer
from parityalign.training.bundles import Limits, cut
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.losses import _passes
from parityalign.training.losses._joining import Signals
from parityalign.training.modules import freeze
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


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    """The towers of these models are small."""
    monkeypatch.setattr(tower, "SMALLEST_TOWER", 1)


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
    parts = cut(rows, Limits(2**40, 2**40), patch=16, prefix=sharing.prefix if sharing else None)
    bundles = [bundle for part in parts for bundle in part.bundles]
    loss = tiny.ANSWER(model, batches.batch(bundles, sharing))
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


def test_a_step_begun_before_the_tower_gave_up_has_its_pictures_all_the_same(student, examples):
    model, batches = opened(student)
    looking = learnt(model, batches, examples)
    batches.tower = tried_tower(model, batches, examples, ROOM)
    learnt(model, batches, examples)
    begun = batches.begin(examples)  # without pixels, since they are not needed
    assert all(batches.tower.known(example.image) for example in examples)
    batches.tower.gave_up = True
    batches.begin = lambda _: begun
    same(learnt(model, batches, examples), looking)


@pytest.mark.parametrize("fault", ["learns", "says something else", "fails", "mixes pictures up", "has no layers"])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_student_that_cannot_do_without_its_tower_looks_each_time(student, examples, monkeypatch, fault, bf16):
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
    told = []
    assert tried_tower(model, batches, examples, ROOM, bf16=bf16, say=told.append) is None
    assert batches.tower is None and len(told) == (fault != "learns")


@pytest.mark.parametrize("more", [0, 1])
def test_a_small_tower_looks_each_time(student, examples, monkeypatch, more):
    model, batches = opened(student)
    weights = sum(weight.numel() for weight in model.model.vision_tower.parameters())
    monkeypatch.setattr(tower, "SMALLEST_TOWER", weights + more)
    assert bool(tried_tower(model, batches, examples, ROOM)) == (not more)


@pytest.mark.parametrize("most", [2**25, 1])
@pytest.mark.parametrize("shared", [False, True])
def test_a_family_that_changes_its_logits_after_the_head_sees_the_picture_in_each_of_its_passes(
    student, examples, monkeypatch, most, shared
):
    model, batches = opened(student)
    plain = model.forward
    monkeypatch.setattr(model, "forward", wraps(plain)(lambda *args, **more: scaled(plain(*args, **more))))
    monkeypatch.setattr(_passes, "MOST_LOGITS", most)
    asked = [*examples, *(replace(each, answer="7 up", pair_id=f"{each.pair_id}b") for each in examples if shared)]
    looking = learnt(model, batches, asked)
    batches.tower = tried_tower(model, batches, examples, ROOM)
    assert batches.tower and bool(tried_sharing(model, batches, asked)) == shared
    same(learnt(model, batches, asked), looking)


def scaled(out):
    out.logits = out.logits / 2
    return out


def test_connectors_that_are_called_otherwise_than_in_the_trial_are_an_error(student, examples):
    model, batches = opened(student)
    found = tried_tower(model, batches, examples, ROOM)
    with pytest.raises(RuntimeError, match="not called as"), found.left_out(model, []):
        pass


def test_what_learns_before_a_connector_or_within_it_is_not_taken_for_the_tower():
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"model_type": "opt", "hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Blip2ForConditionalGeneration(
        Blip2Config(
            vision_config={**size, "image_size": 32, "patch_size": 8},
            qformer_config={**size, "vocab_size": 50, "encoder_hidden_size": 16},
            text_config={**text, "vocab_size": 60, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
            num_query_tokens=4,
            image_token_index=59,
        )
    )
    model.query_tokens.data.normal_()
    freeze(model, {"vision": 0, "connector": 1, "language": 1})
    noise = np.random.default_rng(0).normal(size=(2, 1, 3, 32, 32)).astype(np.float32)
    pictures = [Encoded({"input_ids": [59]}, {"pixel_values": pixels}) for pixels in noise]
    found = tower.FrozenTower(model, None, pictures, ROOM)
    (states,) = found.look(model, pictures)
    assert states.shape == (2, 17, 16)  # patches and their class, and neither the queries nor what they became


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


TRIAL = [1, 1, 1, 2]
"""Looks of the trial."""


@pytest.mark.slow
def test_each_picture_is_looked_at_once_in_all_epochs_and_looks(student, images, pairs, tmp_path, looks):
    level(student, pairs, tmp_path / "out")
    assert looks == [*TRIAL, *[1] * len(images)]


@pytest.mark.slow
def test_where_there_is_no_room_each_look_comes_to_the_same_bits(student, pairs, tmp_path, looks, monkeypatch):
    kept = level(student, pairs, tmp_path / "kept")
    monkeypatch.setattr(tower, "STATES_BYTES", 0)
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
@pytest.mark.parametrize(
    ("room", "checkpointing"),
    [(2**30, False), *(pytest.param(*each, marks=pytest.mark.long) for each in [(2**30, True), (0, False), (0, True)])],
)
def test_a_killed_training_with_an_adapter_and_dropout_in_bfloat16_ends_as_an_uninterrupted_one(
    tmp_path, pairs, monkeypatch, looks, room, checkpointing
):
    monkeypatch.setattr(trainer, "bf16_is_fast", lambda on_gpu: True)
    monkeypatch.setattr(train, "_halves", lambda: True)
    monkeypatch.setattr(tower, "STATES_BYTES", room)
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
