"""Levelled students part of the way from the student's weights to the trained ones."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import tiny
from parityalign.config.training import LevelSettings
from parityalign.training import student as student_module
from parityalign.training import train
from parityalign.training.between import SHARES, Between, lowest

LOSSES = st.floats(0, 10) | st.sampled_from([math.nan, math.inf])


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(tiny.fast_vlm(tmp_path_factory.mktemp("models") / "student", dtype=torch.float32))


def level(student, pairs, out, **choices):
    plan = LevelSettings(batch_size=4, learning_rate=1e-2, max_steps=4, **choices)
    leveller = train.make_leveller(
        student, {"toy": "{question}"}, settings=plan, objective=tiny.ANSWER, seed=3, progress=lambda *_: None
    )
    return leveller(pairs[:9], pairs[9:], out)


@given(st.floats(0, 1))
def test_each_weight_is_on_the_straight_line_between_its_ends(share):
    torch.manual_seed(0)
    before, trained = nn.Linear(3, 4), nn.Linear(3, 4)
    with torch.no_grad():
        trained.bias.copy_(before.bias)
    end = trained.weight.detach().clone()
    between = Between(trained, before)
    between.move(share)
    torch.testing.assert_close(trained.weight.data, (1 - share) * before.weight + share * end)
    assert torch.equal(trained.bias, before.bias)
    between.move(0)
    assert torch.equal(trained.weight, before.weight)
    between.move(1)
    assert torch.equal(trained.weight, end)


def test_an_adapter_moved_part_of_the_way_merges_into_weights_there(student):
    adapted = student_module.add_lora(student_module.open_student(student), 2)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    before = student_module.open_student(student).state_dict()
    with torch.no_grad():
        added = {name: layer.get_delta_weight("default") for name, layer in adapted.named_modules() if _is_lora(layer)}
    Between(adapted, None).move(0.25)
    merged = student_module.merge_adapter(adapted).state_dict()
    assert added
    for name, delta in added.items():
        weight = f"{name.removeprefix('base_model.model.')}.weight"
        torch.testing.assert_close(merged[weight], before[weight] + delta / 4)


def _is_lora(layer):
    return hasattr(layer, "get_delta_weight")


@given(LOSSES, st.lists(LOSSES, min_size=len(SHARES), max_size=len(SHARES)))
def test_the_lowest_loss_decides_and_the_whole_way_where_nothing_is_lower(whole, others):
    at = dict(zip(SHARES, others, strict=True))
    share, loss = lowest(at.__getitem__, whole)
    finite = [each for each in (whole, *others) if math.isfinite(each)]
    if not finite or whole == min(finite):
        assert share == 1
    else:
        assert at[share] == loss == min(finite)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_saved_student_is_where_the_loss_was_lowest_and_so_is_its_adapter(student, tmp_path, monkeypatch, method):
    pairs = tiny.pairs(tiny.drawn(tmp_path, 12), ["a", "b", "c"] * 4)
    settings = {"method": method, "keep_adapter": method == "lora"}
    level(student, pairs, tmp_path / "whole", **settings, interpolate=False)
    monkeypatch.setattr(train, "lowest", lambda loss_at, whole: (0.5, loss_at(0.5)))
    result = level(student, pairs, tmp_path / "half", **settings)
    assert result.interpolation == 0.5
    before, whole = load_file(f"{student}/model.safetensors"), load_file(tmp_path / "whole" / "model.safetensors")
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert any(not torch.equal(before[name], whole[name]) for name in before)
    for name, weight in half.items():
        torch.testing.assert_close(
            weight, before[name].lerp(whole[name], 0.5) if weight.is_floating_point() else weight
        )
    if method == "lora":
        adapter = tmp_path / "half" / "adapter"
        adapted = student_module.open_checkpoint(student, adapter, adapter=True)
        for name, weight in student_module.merge_adapter(adapted).state_dict().items():
            if name in half:
                torch.testing.assert_close(weight, half[name])
