"""Fused kernels are used as far as they fit, make no logits that nobody wants, and are gone when training ends."""

import re
import sys
from types import ModuleType

import pytest
import torch
from transformers.integrations import liger
from transformers.models.qwen2 import modeling_qwen2

import tiny
from makers import mute
from parityalign.config.automatic import decide_level
from parityalign.config.loading import LoadingSettings
from parityalign.config.training import LevelSettings
from parityalign.training import kernels, speed, train, trainer
from parityalign.training.collator import Example

ROPE, NORM = modeling_qwen2.apply_rotary_pos_emb, modeling_qwen2.Qwen2RMSNorm


@pytest.fixture
def made(tmp_path):
    """A trainer of a tiny student, and the examples of a step."""
    student = str(tiny.fast_vlm(tmp_path / "student"))
    pairs = tiny.pairs(tiny.drawn(tmp_path / "images", 4), ("red", "green blue"))
    examples = [Example(pair.image, pair.question, pair.answer) for pair in pairs]
    settings = decide_level(LevelSettings(batch_size=3), None)
    training = trainer.Training(student, LoadingSettings(), settings, tiny.ANSWER, 0, mute, examples[:3], examples[3:])
    found = train.trainer_of(training, tmp_path)
    found.current_gradient_accumulation_steps = 1
    return found, examples[:3]


class Liger:
    """Stands for the package: its loss makes all logits whatever was asked for, and one of its kernels may not fit."""

    def __init__(self, broken: dict[str, object]) -> None:
        self.broken = broken
        self.used: list[str] = []

    def __call__(self, model, fused_linear_cross_entropy=True, **pieces):
        forward = model.forward
        if fused_linear_cross_entropy:
            model.forward = lambda logits_to_keep=0, **inputs: forward(**inputs)
        for piece in (name for name, wanted in pieces.items() if wanted):
            modeling_qwen2.apply_rotary_pos_emb = self.counting(piece)
            modeling_qwen2.Qwen2RMSNorm.extra = piece
            if self.broken.get(piece) == "loss":
                model.get_decoder().norm.forward = torch.zeros_like
            elif piece in self.broken:
                raise self.broken[piece]

    def counting(self, piece):
        def turned(*given, **how):
            self.used.append(piece)
            return ROPE(*given, **how)

        return turned


@pytest.fixture
def installed(monkeypatch):
    def install(**broken):
        package, inner = ModuleType("liger_kernel"), ModuleType("liger_kernel.transformers")
        inner._apply_liger_kernel_to_instance = stand_in = Liger(broken)
        monkeypatch.setitem(sys.modules, "liger_kernel", package)
        monkeypatch.setitem(sys.modules, "liger_kernel.transformers", inner)
        monkeypatch.setattr(liger, "is_liger_kernel_available", lambda: True)
        monkeypatch.setattr(kernels, "_there", lambda: True)
        return stand_in

    return install


def step(made, examples):
    """The gradients of a step, and the most columns of logits that the head made in it."""
    columns = []
    head = made.model.get_output_embeddings()
    with head.register_forward_hook(lambda _head, _states, logits: columns.append(logits.shape[1])) as _:
        made.training_step(made.model, made.data_collator(examples))
    return [weight.grad.clone() for weight in made.model.parameters() if weight.grad is not None], max(columns)


def test_no_logits_are_made_beyond_the_labelled_columns(made, installed):
    trained, examples = made
    stand_in, told = installed(), []
    plain, columns = step(trained, examples)
    wanted = int((trained.batches(examples)["labels"] != -100).any(dim=0).sum()) + 1
    assert columns == wanted
    with kernels.fused_kernels(trained.model, trained.trial, told.append, wanted=True):
        stand_in.used.clear()
        fused, columns = step(trained, examples)
        assert stand_in.used and columns == wanted
    assert told == ["liger-kernel is used"]
    assert all(map(torch.equal, plain, fused))
    stand_in(trained.model)  # with its own loss there would be more
    assert step(trained, examples)[1] > wanted


@pytest.mark.parametrize(
    ("broken", "used", "said"),
    [
        ({"swiglu": ImportError("no such name")}, "geglu", "since the rest does not fit: ImportError: no such name"),
        ({"layer_norm": "loss"}, "geglu", "of liger-kernel rope, rms_norm, swiglu, geglu is used"),
        (dict.fromkeys(kernels.PIECES, RuntimeError("no kernel")), "", "is installed and not used"),
    ],
)
def test_what_does_not_fit_is_left_out_and_never_stops_training(made, installed, broken, used, said):
    (trained, examples), told = made, []
    stand_in = installed(**broken)
    plain, _ = step(trained, examples)
    with kernels.fused_kernels(trained.model, trained.trial, told.append, wanted=True):
        stand_in.used.clear()
        fused, _ = step(trained, examples)
        assert {*stand_in.used} == {used} - {""}
        assert all(map(torch.equal, plain, fused))
    assert len(told) == 1 and said in told[0]


def test_when_training_ends_transformers_is_as_it_was(made, installed):
    trained, _ = made
    installed()
    before = [dict(vars(module)) for module in trained.model.modules()]
    with (
        pytest.raises(KeyboardInterrupt),
        kernels.fused_kernels(trained.model, trained.trial, [].append, wanted=True),
    ):
        assert modeling_qwen2.apply_rotary_pos_emb is not ROPE and NORM.extra
        raise KeyboardInterrupt
    assert modeling_qwen2.apply_rotary_pos_emb is ROPE and not hasattr(NORM, "extra")
    assert [vars(module) for module in trained.model.modules()] == before


def test_without_the_wish_or_the_package_nothing_is_tried(made, installed, monkeypatch):
    trained, _ = made
    monkeypatch.setattr(trained, "trial", lambda: pytest.fail("was tried"))
    with kernels.fused_kernels(trained.model, trained.trial, pytest.fail, wanted=True):
        pass
    installed()
    with kernels.fused_kernels(trained.model, trained.trial, pytest.fail, wanted=False):
        pass


# How fast it goes


def test_the_rates_are_those_of_the_last_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(speed, "_memory", lambda: 2_500_000_000)
    monkeypatch.setattr(speed.Speed, "_busy", lambda _: 80)
    meter = speed.Speed(lambda: now[0])
    for seconds in [9.0] + [2.0] * speed.WINDOW:
        meter.count(8, 4000)
        now[0] += seconds
        said = meter.step()
    assert said == "4.0 examples and 2,000 tokens a second, 2.5 GB, GPU 80 % busy"


def test_training_shows_how_fast_it_goes_beside_its_steps(made):
    trained, _ = made
    told = []

    class Watches:
        def __call__(self, *step):
            pass

        def detail(self, step, text):
            told.append((step, text))

    callback = next(each for each in trained.callback_handler.callbacks if isinstance(each, trainer.LevelCallback))
    callback._progress = Watches()
    trained.train()
    assert len(told) == trained.state.global_step
    rates = r"[\d,.]+ examples and [\d,]+ tokens a second, [\d.]+ GB"
    assert all(step == "level" and re.match(rates, text) for step, text in told)
