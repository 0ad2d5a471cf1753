"""Levelled students between the student's weights and the trained ones."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import tiny
from parityalign.config import LevelSettings, RunConfig
from parityalign.core import STUDENT_FOLDER, RunFolder
from parityalign.tasks import settled
from parityalign.training import student as student_module
from parityalign.training import train
from parityalign.training.interpolation import ALPHAS, Interpolation, lowest

LOSSES = st.floats(0, 10) | st.sampled_from([math.nan, math.inf])


class Killed(BaseException):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(tiny.fast_vlm(tmp_path_factory.mktemp("models") / "student", dtype=torch.float32))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny.pairs(tiny.drawn(tmp_path_factory.mktemp("images"), 12), ["red", "green", "blue square"] * 4)


def level(student, pairs, out, progress=lambda *_: None, **choices):
    plan = LevelSettings(**({"batch_size": 4, "learning_rate": 1e-2, "max_steps": 4, "interpolate": True} | choices))
    leveller = train.make_leveller(
        student, {"toy": "{question}"}, settings=plan, objective=tiny.ANSWER, seed=3, progress=progress
    )
    return leveller(pairs[:9], pairs[9:], out)


def halfway(loss_at):
    """As if the loss were lowest there."""
    assert all(math.isfinite(loss_at(alpha)) for alpha in (0.0, 0.5))
    return 0.5, {0.0: 2.0, 0.5: 1.0}


@given(st.floats(0, 1))
def test_each_weight_is_on_the_straight_line_between_its_ends(alpha):
    torch.manual_seed(0)
    before, trained = nn.Linear(3, 4), nn.Linear(3, 4)
    with torch.no_grad():
        trained.bias.copy_(before.bias)
    end = trained.weight.detach().clone()
    weights = Interpolation(trained, before)
    weights.set(alpha)
    torch.testing.assert_close(trained.weight.data, (1 - alpha) * before.weight + alpha * end)
    assert torch.equal(trained.bias, before.bias)
    weights.set(0)
    assert torch.equal(trained.weight, before.weight)
    weights.set(1)
    assert torch.equal(trained.weight, end)


def test_an_adapter_set_to_an_interpolation_merges_into_its_weights(student):
    adapted = student_module.add_lora(student_module.open_student(student), 2)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    before = student_module.open_student(student).state_dict()
    layers = {name: layer for name, layer in adapted.named_modules() if hasattr(layer, "get_delta_weight")}
    added = {name: layer.get_delta_weight("default") for name, layer in layers.items()}
    weights = Interpolation(adapted, None)
    for alpha in (0.75, 0.25):
        weights.set(alpha)
    merged = student_module.merge_adapter(adapted).state_dict()
    assert added
    for name, delta in added.items():
        weight = f"{name.removeprefix('base_model.model.')}.weight"
        torch.testing.assert_close(merged[weight], before[weight] + delta / 4)


@given(st.lists(LOSSES, min_size=len(ALPHAS), max_size=len(ALPHAS)))
def test_the_lowest_loss_decides_and_of_several_the_one_of_the_trained_weights(losses):
    at = dict(zip(ALPHAS, losses, strict=True))
    alpha, seen = lowest(at.__getitem__)
    finite = [loss for loss in losses if math.isfinite(loss)]
    assert seen.keys() == at.keys()
    if finite:
        assert at[alpha] == min(finite)
        assert not any(at[larger] == min(finite) for larger in ALPHAS if larger > alpha)
    else:
        assert alpha == 0, "nothing is known of any"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_saved_student_is_where_the_loss_was_lowest_and_so_is_its_adapter(
    student, pairs, tmp_path, monkeypatch, method
):
    settings = {"method": method, "keep_adapter": method == "lora"}
    level(student, pairs, tmp_path / "whole", **settings, interpolate=False)
    monkeypatch.setattr(train, "lowest", halfway)
    result = level(student, pairs, tmp_path / "half", **settings)
    assert (result.interpolation, result.held_out_loss_before, result.held_out_loss_after) == (0.5, 2.0, 1.0)
    before, whole = load_file(f"{student}/model.safetensors"), load_file(tmp_path / "whole" / "model.safetensors")
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert any(not torch.equal(before[name], whole[name]) for name in before)
    for name, weight in half.items():
        torch.testing.assert_close(
            weight, before[name].lerp(whole[name], 0.5) if weight.is_floating_point() else weight
        )
    if method == "lora":
        adapted = student_module.open_checkpoint(student, tmp_path / "half" / "adapter", adapter=True)
        merged = student_module.merge_adapter(adapted).state_dict()
        for name in half.keys() & merged.keys():
            torch.testing.assert_close(merged[name], half[name])


@pytest.mark.slow
def test_losses_are_those_of_the_saved_student_and_of_the_one_before(student, pairs, tmp_path):
    watching = {}

    class Watch:
        def __call__(self, *_):
            """Steps are of no interest."""

        def measured(self, what, step, value):
            watching.setdefault(what, {})[step] = value

    result = level(student, pairs, tmp_path / "out", Watch())
    held_out = watching["held-out loss"]
    assert result.held_out_loss_before == pytest.approx(held_out[0], rel=1e-4)
    assert result.held_out_loss_after <= min(held_out.values()) * (1 + 1e-4)


@pytest.mark.slow
def test_a_student_whose_every_checkpoint_is_worse_may_be_better_before_them(student, pairs, tmp_path, monkeypatch):
    far = {"learning_rate": 3.0, "skipped_steps": 1000}
    assert level(student, pairs, tmp_path / "whole", **far, interpolate=False).best_step == 0
    monkeypatch.setattr(train, "lowest", halfway)
    result = level(student, pairs, tmp_path / "out", **far)
    assert result.best_step > 0 and result.interpolation == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("method", "changed"), [("full", {"interpolate": False}), ("lora", {"keep_adapter": True})])
def test_a_training_that_is_over_is_not_done_again_for_what_is_done_with_its_weights(
    student, pairs, tmp_path, monkeypatch, method, changed
):
    def killed(loss_at):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(train, "lowest", killed)
        level(student, pairs, tmp_path / "out", method=method)
    steps = []
    level(student, pairs, tmp_path / "out", lambda *told: steps.append(told), method=method, **changed)
    assert not steps


def test_a_run_whose_student_was_trained_before_goes_on_so_and_others_interpolate(tmp_path):
    def config(**level):
        tasks = {"textvqa": {"images": str(tmp_path)}}
        said = {"run": str(tmp_path / "run"), "teacher": "hf:a", "student": "hf:b", "tasks": tasks, "level": level}
        return RunConfig.model_validate(said)

    def interpolates(**level):
        return settled(config(**level)).level.interpolate

    assert interpolates()
    assert not interpolates(interpolate=False)
    for settings, expected in ({"level.select": "gaps"}, False), ({"level.interpolate": True}, True):
        with RunFolder(tmp_path / "run") as run:
            run.artifact(STUDENT_FOLDER, inputs={}, settings=settings).finish({}, outcome="levelled")
        assert interpolates() == expected
        assert interpolates(interpolate=True)
