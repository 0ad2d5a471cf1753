"""Levelling real models: rates of parts, micro-batches, little memory, adapters, and the check."""

import json
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerState
from transformers.integrations import bitsandbytes
from transformers.quantizers.base import HfQuantizer

import families
import tiny
from makers import mute
from parityalign.config.automatic import decide_level
from parityalign.config.loading import LoadingSettings
from parityalign.config.training import LevelSettings, LrMultipliers
from parityalign.core.errors import UserError, WorkFailed
from parityalign.models import parts, token_boxes
from parityalign.models.device import quantisation
from parityalign.models.encoding import stop_tokens
from parityalign.models.loading import open_processor
from parityalign.models.rounding import mean_difference, rounding_of
from parityalign.training import modules, oom, train, trainer, verify_saved
from parityalign.training import student as student_module
from parityalign.training.bundles import Bundle, MicroBatch
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.losses import _passes
from parityalign.training.sharing import tried_sharing

AS_IT_IS = LoadingSettings()


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(tiny.fast_vlm(tmp_path_factory.mktemp("student")))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    images = tiny.drawn(tmp_path_factory.mktemp("images"), 7)
    return tiny.pairs(images, ("red", "green blue", "a blue square"))


def level(student, pairs, out, **choices):
    objective, progress = choices.pop("objective", tiny.ANSWER), choices.pop("progress", mute)
    plan = LevelSettings(**({"batch_size": 4, "max_steps": 2, "learning_rate": 3e-3} | choices))
    made = train.make_leveller(
        student, {"toy": "{question}"}, settings=plan, objective=objective, seed=3, progress=progress
    )
    return made(pairs[:5], pairs[5:], out)


@pytest.fixture
def trained(student, pairs, tmp_path):
    """A trainer of these settings, with the examples of one step."""

    def build(objective=tiny.ANSWER, **choices):
        settings = decide_level(LevelSettings(**({"batch_size": 5} | choices)), None)
        examples = [Example(pair.image, pair.question, pair.answer) for pair in pairs]
        training = trainer.Training(student, AS_IT_IS, settings, objective, 0, mute, examples[:5], examples[5:])
        made = train.trainer_of(training, tmp_path)
        made.current_gradient_accumulation_steps = 1
        return made, examples[:5]

    return build


def gradients(build, *, pictures=5, shared=False, **choices):
    """What one step's backward pass leaves; its examples are about so many pictures, and may share their rows."""
    made, examples = build(**choices)
    made.args.bf16 = False
    examples = [replace(each, image=examples[place % pictures].image) for place, each in enumerate(examples)]
    made.sharing = tried_sharing(made.model, made.batches, examples) if shared else None
    assert bool(made.sharing) == shared
    loss = made.training_step(made.model, made.data_collator(examples))
    return float(loss), {name: weight.grad for name, weight in made.model.named_parameters() if weight.grad is not None}


def close(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-4)
    assert one[1].keys() == other[1].keys()
    # bfloat16 where the processor has it: what rounds differently is small beside the largest gradient.
    largest = max(float(gradient.abs().max()) for gradient in one[1].values())
    for name, gradient in one[1].items():
        torch.testing.assert_close(other[1][name], gradient, rtol=1e-3, atol=2e-3 * largest, msg=name)


# A step in micro-batches


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_step_in_micro_batches_has_the_loss_and_gradient_of_the_whole(trained, rows):
    close(gradients(trained), gradients(trained, micro_batch_size=rows))


@pytest.mark.parametrize("tokens", [1, 60, 110, 200])
def test_a_step_hangs_neither_on_where_it_is_cut_nor_on_which_of_its_pairs_share_a_row(trained, monkeypatch, tokens):
    whole = gradients(trained, pictures=2)
    close(whole, gradients(trained, pictures=2, shared=True))
    monkeypatch.setattr(oom, "MICRO_BATCH_TOKENS", {True: tokens, False: tokens})
    for shared in (False, True):
        close(whole, gradients(trained, pictures=2, shared=shared))


def test_gradient_checkpointing_changes_neither_loss_nor_gradient(trained):
    close(gradients(trained), gradients(trained, gradient_checkpointing=True))
    close(gradients(trained, method="lora"), gradients(trained, method="lora", gradient_checkpointing=True))


def short_of_memory(rows):
    def refuse(loss, batch):
        if len(batch["input_ids"]) > rows:
            raise MemoryError
        return loss

    return tiny.Changed(refuse)


@pytest.mark.slow
def test_where_memory_runs_out_fewer_rows_go_through_and_the_result_says_so(student, pairs, tmp_path):
    result = level(student, pairs, tmp_path / "out", objective=short_of_memory(1))
    assert result.micro_batch_tokens < 50 and result.steps == 2
    asked = level(student, pairs, tmp_path / "asked", micro_batch_size=1)
    assert asked.micro_batch_tokens is None
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "asked"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_that_memory_ran_out_is_told_by_the_process_that_goes_on_too(student, pairs, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train, "save_student", killed)
        level(student, pairs, tmp_path / "out", objective=short_of_memory(1))
    assert level(student, pairs, tmp_path / "out").micro_batch_tokens < 50


@pytest.mark.slow
def test_a_training_that_goes_on_knows_how_much_memory_there_is(student, pairs, tmp_path):
    def until(last, out):
        sizes = []

        def refuse(loss, batch):
            if loss.requires_grad:
                sizes.append(len(batch["input_ids"]))
                if sizes[-1] > 2:
                    raise MemoryError
            return loss

        def progress(_, done, __):
            if done == last:
                raise KeyboardInterrupt

        told = {"objective": tiny.Changed(refuse), "progress": progress, "max_steps": 8, "patience": 99}
        return level(student, pairs, tmp_path / out, **told), sizes

    whole, sizes = until(None, "whole")
    assert sizes[0] == 4
    with pytest.raises(KeyboardInterrupt):
        until(5, "cut")
    resumed, sizes = until(None, "cut")
    assert resumed == whole and sizes[0] == 2
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "what",
    [
        torch.OutOfMemoryError("no room"),
        MemoryError(),
        RuntimeError("can't allocate memory: you tried"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This may come of too large a batch."),
    ],
)
def test_where_memory_is_short_for_all_what_fits_is_found_and_more_is_tried_ever_more_seldom(what, monkeypatch):
    monkeypatch.setattr(oom, "clear_device_cache", lambda **_: None)  # takes a second each time
    sizes = []

    def work(parts):
        sizes.append([])
        for part in parts:
            sizes[-1].append(part.size)
            if part.size > 3:
                raise what
        return max(sizes[-1])

    backoff = oom.OomBackoff(64)
    assert [backoff(parts_of(items), work) for items in (20, 20, 2)] == [2, 2, 2]
    assert [tried[0] for tried in sizes[:5]] == [20, 10, 5, 2, 2] and backoff.smallest == 2
    other = oom.OomBackoff(64)
    other.restore(backoff.state)
    assert other.state == backoff.state
    found = [(backoff(parts_of(20), work), other(parts_of(20), work), backoff.state == other.state) for _ in range(9)]
    assert {same for *_, same in found} == {True} and found[-1][:2] == (3, 3)
    tried = [each for each in range(1000) if backoff(parts_of(20), work) == 3 and sizes[-2][0] > 3]
    assert 4 < len(tried) < 40
    assert {later - earlier for earlier, later in pairwise(tried)} >= {9, 17, 33, 65}


@given(st.integers(64, 4096).flatmap(lambda wished: st.tuples(st.just(wished), st.integers(8, wished))))
def test_at_least_four_fifths_of_what_fits_are_used_wherever_memory_ends(sizes):
    wished, room = sizes
    backoff = oom.OomBackoff(wished)
    used = backoff_clears(lambda: [backoff(parts_of(wished), fits(room)) for _ in range(200)])
    assert used[-1] >= 0.8 * room


@pytest.mark.parametrize(("saved", "fits"), [(None, None), (None, 24), (16, None), (16, 24), (24, 16)])
def test_a_training_that_goes_on_tells_the_smallest_micro_batch_of_both(saved, fits):
    before, now = (oom.Memory(on_gpu=False, fits=size) for size in (saved, fits))
    state = TrainerState()
    before.remember(state)
    now.recall(state)
    smallest = min(filter(None, (saved, fits)), default=None)
    assert now.steps.smallest == smallest and (smallest is None or now.steps.tokens == smallest)
    now.remember(state)
    assert oom.fewest_tokens(state) == smallest


@pytest.mark.parametrize(("done", "learns_in"), [(0, 2), (1, 1), (2, None), (7, None)])
def test_a_training_that_goes_on_learns_at_its_second_step_what_fits_as_one_that_was_not_killed(
    done, learns_in, monkeypatch
):
    numbers = {"memory_allocated": 10, "max_memory_allocated": 30, "memory_reserved": 40, "mem_get_info": (50, 100)}
    for name, number in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda number=number: number)
    looked, steps = [], []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: looked.append(len(steps)))
    before, now = (oom.Memory(on_gpu=True, learns=True) for _ in range(2))
    state = TrainerState(global_step=done)
    if done:
        before.remember(state)
    now.recall(state)
    for step in range(3):
        steps.append(step)
        with now.learnt():
            pass
    assert looked == ([learns_in] if learns_in else [])


def parts_of(items):
    """Cuts so many examples of one token each."""

    def cut(tokens):
        sizes = [min(tokens, items - start) for start in range(0, items, tokens)]
        return [MicroBatch([Bundle([None], 0, 1, 0)] * size, size) for size in sizes]

    return cut


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 256), st.lists(st.integers(1, 8).map(lambda power: 2**power), min_size=1, max_size=6))
def test_one_large_picture_cuts_its_own_step_and_the_next_ones_grow_again(wished, pictures):
    backoff = oom.OomBackoff(wished)
    backoff_clears(lambda: [backoff(parts_of(wished), fits(room)) for room in pictures])
    assert backoff_clears(lambda: [backoff(parts_of(wished), fits(wished)) for _ in range(200)])[-1] == wished
    assert (backoff.smallest is None) == all(room >= wished for room in pictures)


def fits(room):
    def work(parts):
        sizes = [part.size for part in parts if part.size <= room or refuse()]
        return max(sizes)

    def refuse():
        raise MemoryError

    return work


def backoff_clears(work):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(oom, "clear_device_cache", lambda **_: None)
        return work()


def test_where_a_step_leaves_memory_micro_batches_grow_to_it_unless_it_has_run_out_before():
    backoff = oom.OomBackoff(8)
    backoff(parts_of(20), fits(8))
    assert backoff.largest == 8
    backoff.grow(36)
    assert backoff(parts_of(80), fits(36)) == 36
    went_on = oom.OomBackoff(8)
    went_on.restore(backoff.state)
    assert went_on.state == backoff.state
    assert backoff_clears(lambda: backoff(parts_of(80), fits(20))) == backoff.smallest == 18
    went_on.restore(backoff.state)
    for each in (backoff, went_on):
        each.grow(64)
        sizes = backoff_clears(lambda each=each: [each(parts_of(80), fits(1000)) for _ in range(9)])
        assert sizes[-1] == 36
    known_to_fit = oom.OomBackoff(8)
    known_to_fit.smallest = 8
    known_to_fit.restore(backoff.state)
    assert known_to_fit.tokens == 8


@given(st.integers(1, 10**6), st.floats(1, 1e12), st.floats(0, 1e12))
def test_the_tokens_that_fit_take_no_more_than_is_free(tokens, used, free):
    fit = oom.tokens_that_fit(tokens, used, free)
    assert 0 <= fit <= oom._MOST_TOKENS and fit % oom._STEP_OF_TOKENS == 0
    assert fit * used / tokens <= free


@pytest.mark.parametrize(
    ("learns", "divided", "grown"), [(True, False, 131_072), (True, True, 65_536), (False, False, 65_536)]
)
def test_on_a_gpu_of_its_own_the_second_step_tells_how_much_fits(learns, divided, grown, monkeypatch):
    bytes_of = {"memory_allocated": 40, "max_memory_allocated": 90, "memory_reserved": 60}
    for name, gigabytes in bytes_of.items():
        monkeypatch.setattr(torch.cuda, name, lambda gigabytes=gigabytes: gigabytes * 10**9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (100 * 10**9, 200 * 10**9))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    memory = oom.Memory(on_gpu=True, learns=learns)
    if divided:
        memory.never_begins_anew()
    seen = []
    for _ in range(4):
        with memory.learnt():
            memory.steps(parts_of(10**6), fits(10**9))
        seen.append(memory.steps.tokens)
    # 65,536 tokens took 50 GB of 120: nine tenths of these are enough for 141,557.
    assert seen == [65_536, grown, grown, grown]


def test_a_row_that_does_not_fit_ends_with_what_would_help(student, pairs, tmp_path):
    with pytest.raises(WorkFailed, match=r"gradient_checkpointing.*max_pixels.*qlora"):
        level(student, pairs, tmp_path / "out", objective=short_of_memory(0))


def test_another_error_is_no_lack_of_memory():
    sizes = []

    def work(parts):
        sizes.extend(part.size for part in parts)
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        oom.OomBackoff(8)(parts_of(5), work)
    assert sizes == [5]


@pytest.mark.slow
def test_what_only_saves_memory_may_change_before_a_training_is_gone_on_with(student, pairs, tmp_path):
    def killed_after_3(_, done, __):
        if done == 3:
            raise KeyboardInterrupt

    plan = {"batch_size": 4, "max_steps": 6, "learning_rate": 3e-3}
    make = {"objective": tiny.ANSWER, "seed": 3}
    first = train.make_leveller(
        student, {"toy": "{question}"}, settings=LevelSettings(**plan), progress=killed_after_3, **make
    )
    with pytest.raises(KeyboardInterrupt):
        first(pairs[:5], pairs[5:], tmp_path / "out")
    done = []
    second = train.make_leveller(
        student,
        {"toy": "{question}"},
        settings=LevelSettings(**plan, micro_batch_size=2, gradient_checkpointing=True),
        progress=lambda *told: done.append(told[1]),
        **make,
    )
    second(pairs[:5], pairs[5:], tmp_path / "out")
    assert done[0] > 1


# Long vocabularies


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_loss_over_a_long_vocabulary_in_chunks_is_the_same(trained, monkeypatch, method):
    whole = gradients(trained, method=method)
    monkeypatch.setattr(_passes, "MOST_LOGITS", 700)  # three tokens' logits
    close(whole, gradients(trained, method=method))


def test_a_family_that_caps_its_logits_is_not_taken_apart_before_the_head(trained, monkeypatch):
    made, examples = trained()
    batch = made.batches(examples)
    head = made.model.lm_head

    def capped(self, *args, **kwargs):
        out = type(made.model).forward(self, *args, **kwargs)
        out.logits = out.logits.tanh()
        return out

    monkeypatch.setattr(made.model, "forward", capped.__get__(made.model))
    with torch.no_grad():
        whole = tiny.ANSWER(made.model, batch)
        monkeypatch.setattr(_passes, "MOST_LOGITS", 700)
        assert tiny.ANSWER(made.model, batch) == whole
    assert made.model.lm_head is head


# Parts


@pytest.fixture(scope="session")
def family_models(tmp_path_factory):
    """The tiny model of each family, without its weights being read back."""
    made = {}
    for family in families.FAMILIES:
        tokenizer = family.tokenizer()
        made[family.name] = family.model(families.Parts(tokenizer))
    return made


@pytest.mark.parametrize("name", [family.name for family in families.FAMILIES])
def test_every_family_is_told_apart_into_tower_connector_and_language_model(family_models, name):
    model = family_models[name]
    found = modules.modules_of(model)
    assert set(found.values()) == {"vision", "connector", "language"}
    decoder = {id(weight) for weight in model.get_decoder().parameters()}
    decoder |= {id(weight) for weight in model.get_output_embeddings().parameters()}
    for weight_name, weight in model.named_parameters():
        assert (found[weight_name] == "language") == (id(weight) in decoder), weight_name


@pytest.mark.parametrize("name", [family.name for family in families.FAMILIES])
def test_four_bits_are_for_the_linear_layers_of_the_language_model_and_no_others(family_models, name, monkeypatch):
    converted = SimpleNamespace(nn=SimpleNamespace(Linear4bit=FourBits))
    monkeypatch.setattr(bitsandbytes, "bnb", converted, raising=False)
    config = quantisation(LoadingSettings(quantise="4bit"), torch.float32)
    model = deepcopy(family_models[name])
    left_alone = HfQuantizer.get_modules_to_not_convert(model, config.llm_int8_skip_modules)
    linear = {layer for layer, module in model.get_decoder().named_modules() if type(module) is nn.Linear}
    bitsandbytes.replace_with_bnb_linear(model, left_alone, config)
    assert {layer for layer, module in model.get_decoder().named_modules() if type(module) is FourBits} == linear != {}
    assert sum(type(module) is FourBits for module in model.modules()) == len(linear)


class FourBits(nn.Linear):
    """Stands where bitsandbytes would put its layer."""

    def __init__(self, wide, high, bias, *_, **__):
        super().__init__(wide, high, bias)


@pytest.mark.parametrize("name", [family.name for family in families.FAMILIES])
def test_lora_stands_only_in_parts_that_are_trained_and_never_beside_the_head(family_models, name):
    layers = modules.linear_layers(family_models[name], {"vision": 0, "connector": 1.0, "language": 0.5})
    kinds = dict(family_models[name].named_modules())
    assert layers and all(isinstance(kinds[layer], nn.Linear) for layer in layers)
    assert {parts.part_of(layer) for layer in layers} <= {"connector", "language"}
    assert not [layer for layer in layers if kinds[layer] is family_models[name].get_output_embeddings()]


@pytest.mark.slow
def test_a_frozen_part_stays_as_it_is_and_a_slow_one_moves_less(student, pairs, tmp_path):
    rates = LrMultipliers(vision=0, connector=1, language=1e-3)
    level(student, pairs, tmp_path / "out", lr_multipliers=rates, weight_decay=0.0, max_steps=6)
    before, after = load_file(f"{student}/model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    moved = {name: float((before[name] - after[name]).abs().max()) for name in before if "running" not in name}
    by_part = {part: [moved[name] for name in moved if parts.part_of(name) == part] for part in parts.PARTS}
    assert max(by_part["vision"]) == 0
    assert min(by_part["connector"]) > 100 * max(by_part["language"]) > 0


def test_the_rates_are_factors_on_the_learning_rate_with_and_without_decay(trained):
    made, _ = trained(lr_multipliers=LrMultipliers(vision=0.1, connector=2, language=1), learning_rate=1e-3)
    groups = made.create_optimizer().param_groups
    assert sorted({round(group["lr"], 6) for group in groups}) == [1e-4, 1e-3, 2e-3]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.01}
    every = {id(weight) for group in groups for weight in group["params"]}
    assert every == {id(weight) for weight in made.model.parameters()}


def test_adafactor_learns_at_the_same_rates_and_keeps_hardly_anything(trained):
    kept = {}
    for optimiser in ("adamw", "adafactor"):
        made, examples = trained(optimiser=optimiser, lr_multipliers=LrMultipliers(vision=0.1), learning_rate=1e-3)
        steps = made.create_optimizer()
        assert sorted({round(group["lr"], 6) for group in steps.param_groups}) == [1e-4, 1e-3]
        before = [weight.detach().clone() for weight in made.model.parameters()]
        made.training_step(made.model, made.data_collator(examples))
        steps.step()
        assert not all(map(torch.equal, before, made.model.parameters()))
        states = [value for state in steps.state.values() for value in state.values() if torch.is_tensor(value)]
        kept[optimiser] = sum(value.numel() for value in states)
    assert kept["adamw"] > 1.9 * sum(weight.numel() for weight in made.model.parameters())
    assert kept["adafactor"] < 0.2 * kept["adamw"]


def test_adamw_in_8_bits_is_refused_where_it_cannot_work(student, monkeypatch):
    monkeypatch.setattr(student_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'parityalign\[quantised\]', or set level.optimiser: adamw"):
        student_module.refuse_optimiser("adamw_8bit")
    monkeypatch.setattr(student_module, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="adamw_8bit, which needs a GPU"):
        student_module.open_trainable(
            student, AS_IT_IS, decide_level(LevelSettings(optimiser="adamw_8bit"), None), half=False
        )
    assert trainer._arguments(_training(optimiser="adamw_8bit"), Path("work")).optim == "adamw_8bit"


def test_checkpoints_of_another_optimiser_are_begun_anew(tmp_path):
    work = train._work_folder(tmp_path / "out", _training())
    (work / "checkpoint-1").mkdir()
    assert (train._work_folder(tmp_path / "out", _training(liger=False)) / "checkpoint-1").is_dir()
    assert not [*train._work_folder(tmp_path / "out", _training(optimiser="adafactor")).glob("checkpoint-*")]


def _training(**choices):
    settings = decide_level(LevelSettings(**choices), None)
    return trainer.Training("student", AS_IT_IS, settings, tiny.ANSWER, 0, mute, [], [])


class Odd(nn.Module):
    """A family that names its parts like no other."""

    def __init__(self, *names):
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("eye", "language_model", "connector"), "no vision was found"),
        (("vision_tower", "multi_modal_projector", "brain", "lm_head"), "brain is in no known part"),
    ],
)
def test_a_family_that_cannot_be_taken_apart_is_refused_with_its_modules(names, said):
    with pytest.raises(UserError, match=said) as refused:
        modules.freeze(Odd(*names), {"vision": 0.1, "connector": 1, "language": 1})
    assert "Odd" in str(refused.value) and all(name in str(refused.value) for name in names)


def test_a_part_without_linear_layers_cannot_have_lora_alone(trained):
    with pytest.raises(UserError, match="no linear layer"):
        trained(method="lora", lr_multipliers=LrMultipliers(vision=1, connector=0, language=0))  # a ResNet


def test_nothing_to_train_is_refused_in_the_settings():
    with pytest.raises(ValueError, match="all 0"):
        LrMultipliers(vision=0, connector=0, language=0)


# Adapters


def test_the_settings_of_lora_reach_the_adapter(student):
    settings = decide_level(LevelSettings(method="lora", lora_rank=3, lora_alpha=5, lora_dropout=0.25), None)
    adapted = student_module.open_trainable(student, AS_IT_IS, settings, half=False)
    config = adapted.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5, 0.25)
    settings = decide_level(LevelSettings(method="lora", lora_rank=3), None)
    plain = student_module.open_trainable(student, AS_IT_IS, settings, half=False)
    assert plain.peft_config["default"].lora_alpha == 6


def test_below_an_adapter_weights_may_be_in_half_precision_while_the_adapter_is_not(student):
    settings = decide_level(LevelSettings(method="lora"), None)
    adapted = student_module.open_trainable(student, AS_IT_IS, settings, half=True)
    kinds = {"lora" in name: weight.dtype for name, weight in adapted.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}


def test_an_adapter_under_autocast_learns_the_same_without_copies_of_its_input(trained):
    made, examples = trained(method="lora", lora_dropout=0)
    model = made.model.to(torch.bfloat16)
    for name, weight in model.named_parameters():
        if "lora" in name:
            weight.data = torch.randn(weight.shape) / 10
    batch = made.batches(examples)

    def learnt():
        kept = {}

        def keep(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no place is used twice
            return tensor

        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
            loss = tiny.ANSWER(model, batch)
        size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        loss.backward()
        return size, [loss, *(weight.grad for weight in model.parameters() if weight.grad is not None)]

    usual, expected = learnt()
    with student_module.without_casts(model, autocast=True):
        smaller, found = learnt()
    assert len(found) > 10 and all(map(torch.equal, found, expected))
    assert smaller < 0.9 * usual
    again, _ = learnt()
    assert again == usual


def test_an_adapter_is_merged_beside_the_gpu_in_the_stored_precision_as_it_would_be_in_float32(tmp_path):
    location = str(tiny.fast_vlm(tmp_path / "student", dtype=torch.bfloat16))
    adapted = student_module.add_lora(student_module.open_student(location), 3)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.05)
    adapted.save_pretrained(tmp_path / "checkpoint")
    merged = student_module.merge_adapter(student_module.open_to_merge(location, tmp_path / "checkpoint"))
    finer = student_module.open_checkpoint(location, tmp_path / "checkpoint", adapter=True)
    whole = student_module.merge_adapter(finer).to(torch.bfloat16).state_dict()
    assert {weight.device.type for weight in merged.parameters()} == {"cpu"}
    assert merged.state_dict().keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in merged.state_dict().items())
    before = student_module.open_student(location, dtype=torch.bfloat16).state_dict()
    assert not all(torch.equal(tensor, whole[name]) for name, tensor in before.items())


@pytest.mark.slow
def test_an_adapter_of_a_student_with_shared_embeddings_merges_and_reloads(pairs, tmp_path):
    family = next(family for family in families.FAMILIES if family.name == "Qwen2-VL")
    student = str(families.write(tmp_path / "student", family))
    chosen = {"method": "lora", "learning_rate": 2e-2, "max_steps": 4, "keep_adapter": True}
    result = level(student, pairs, tmp_path / "out", **chosen)
    assert result.best_step > 0
    before, after = load_file(f"{student}/model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    embeddings = next(name for name in before if "embed_tokens" in name)
    assert torch.equal(before[embeddings], after[embeddings])
    # The adapter that is kept makes the levelled student of the one before, by peft alone.
    assert json.loads((tmp_path / "out/adapter/adapter_config.json").read_text())["base_model_name_or_path"] == student
    adapted = PeftModel.from_pretrained(student_module.open_student(student), tmp_path / "out" / "adapter")
    merged, kept = adapted.merge_and_unload().state_dict(), student_module.open_student(str(tmp_path / "out"))
    for name, weight in kept.state_dict().items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-6)


def test_qlora_trains_beside_4_bits_and_leaves_whole_weights(pairs, tmp_path, monkeypatch):
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False, raising=False)  # else it packs for answering only
    monkeypatch.setattr(student_module, "refuse_method", lambda method: None)
    student = str(tiny.llava(tmp_path / "student", width=64))  # blocks of 64 weights share a scale
    result = level(student, pairs, tmp_path / "out", method="qlora", learning_rate=2e-2, max_steps=6)
    assert result.best_step > 0 and result.held_out_loss_after < result.held_out_loss_before
    before, after = load_file(f"{student}/model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys() and {tensor.dtype for tensor in after.values()} >= {torch.float32}
    # The losses are those of the whole weights, before and after, not of the four bits that were trained on.
    settings = decide_level(LevelSettings(method="full", batch_size=4), None)
    examples = [Example(pair.image, pair.question, pair.answer) for pair in pairs]
    for folder, said in ((student, result.held_out_loss_before), (tmp_path / "out", result.held_out_loss_after)):
        training = trainer.Training(str(folder), AS_IT_IS, settings, tiny.ANSWER, 0, mute, examples, examples[5:])
        assert train.trainer_of(training, tmp_path).held_out_loss() == pytest.approx(said, rel=0.02)


def test_qlora_without_bitsandbytes_is_answered_with_the_install_line(student, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(student_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'parityalign\[lora,quantised\]'"):
        level(student, pairs, tmp_path / "out", method="qlora")


def test_qlora_without_a_gpu_is_refused(student, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(student_module, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a GPU"):
        level(student, pairs, tmp_path / "out", method="qlora")


# The saved student says what the trained one says


@contextmanager
def a_bad_merge(monkeypatch):
    """Saves other weights than were trained."""
    with monkeypatch.context() as patched:

        def merged(model):
            whole = student_module.merge_adapter(model)
            with torch.no_grad():
                for weight in whole.parameters():
                    weight.mul_(1.2)
            return whole

        patched.setattr(train, "merge_adapter", merged)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_saved_student_that_says_something_else_is_refused_and_saved_anew(
    student, pairs, tmp_path, monkeypatch, method
):
    plan = {"method": method, "learning_rate": 1e-2}
    with a_bad_merge(monkeypatch), pytest.raises(WorkFailed, match="differs from the trained one"):
        level(student, pairs, tmp_path / "out", **plan)
    monkeypatch.setattr(trainer.LevelTrainer, "train", lambda *_, **__: pytest.fail("trained anew"))
    assert level(student, pairs, tmp_path / "out", **plan).steps == 2


def test_the_check_sees_the_answer_and_takes_rounding_for_what_it_is(student, pairs):
    model = student_module.open_student(student)
    processor = open_processor(student)
    batches = AnswerCollator(processor, stop_tokens(processor.tokenizer, model.generation_config))
    examples = [Example(pair.image, pair.question, pair.answer) for pair in pairs]
    said = verify_saved.answer_logprobs(model, batches, examples)
    batch = batches(examples[: verify_saved.PAIRS_COMPARED])
    assert -float(said.mean()) == pytest.approx(float(tiny.ANSWER(model, batch).detach()), abs=1e-4)
    rounded = verify_saved.answer_logprobs(model.to(torch.float16).float(), batches, examples)
    verify_saved.refuse_difference(said, rounded, torch.float16, "there")
    with pytest.raises(WorkFailed, match="rounding to float16 explains"):
        verify_saved.refuse_difference(said, said * float("nan"), torch.float16, "there")


def test_a_student_in_bfloat16_whose_tower_takes_no_other_precision_can_be_checked(tmp_path, pairs):
    folder = str(tiny.fast_vlm(tmp_path / "student"))
    model, processor = student_module.open_student(folder), open_processor(folder)
    batches = AnswerCollator(processor, stop_tokens(processor.tokenizer, model.generation_config))
    examples = [Example(pair.image, pair.question, pair.answer) for pair in pairs]
    said = verify_saved.answer_logprobs(model, batches, examples)
    half = verify_saved.answer_logprobs(model.to(torch.bfloat16), batches, examples)
    assert mean_difference(said, half) < rounding_of(torch.bfloat16)


def test_a_family_that_cannot_be_trained_as_asked_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    folder = tiny.fast_vlm(tmp_path / "student")
    (folder / "model.safetensors").write_bytes(b"")
    attends = decide_level(LevelSettings(objective={"answer": 1, "attention": 1}), None)
    apart = decide_level(LevelSettings(lr_multipliers={"vision": 0.1}), None)
    student_module.refuse_student(str(folder), AS_IT_IS, attends)
    student_module.refuse_student(str(folder), AS_IT_IS, apart)
    monkeypatch.setattr(token_boxes, "_LAYOUTS", {})
    with pytest.raises(UserError, match="attention cannot be placed for Llava"):
        student_module.refuse_student(str(folder), AS_IT_IS, attends)
    monkeypatch.setattr(parts, "_PART_OF", {})
    with pytest.raises(UserError, match="FastVlm"):
        student_module.refuse_student(str(folder), AS_IT_IS, apart)
