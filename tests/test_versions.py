"""What is taken from the inside of transformers: found under each of its names, else told in words."""

import importlib
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, GenerationMixin

import tiny
from parityalign.core.errors import UserError
from parityalign.models import internals
from parityalign.models.attention import recording_attention
from parityalign.models.backends import hf
from parityalign.models.backends._generate import GenerationPasses, refuse_unknown_generate
from parityalign.models.loading import open_model
from parityalign.models.versions import NEWEST, OLDEST, known

HERE = Path(__file__).parent.parent
KNOWN = f"Install a version from {OLDEST} to {NEWEST}: pip install 'transformers>="


class Counting:
    """Stands for a model of some version of transformers: its cache holds the tokens so far, which are its output."""

    def __init__(self, cache_name):
        self.cache_name = cache_name
        self.taken = []

    def _prefill(self, input_ids, generation_config, model_kwargs):
        return self(input_ids, **model_kwargs)

    def prepare_inputs_for_generation(self, input_ids, next_sequence_length, **carried):
        assert input_ids.shape[1] == next_sequence_length
        return {"input_ids": input_ids, **carried}

    def __call__(self, input_ids, *, return_dict=True, **carried):
        self.taken.append(input_ids.tolist())
        states = input_ids[:, None, :, None].float()
        keys, _ = carried[self.cache_name].update(states, states, 0)
        return SimpleNamespace(logits=keys[:, 0, :, 0][:, None], cache=carried[self.cache_name])

    def _update_model_kwargs_for_generation(self, outputs, model_kwargs):
        mask = model_kwargs["attention_mask"]
        grown = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return model_kwargs | {self.cache_name: outputs.cache, "attention_mask": grown}


def begun(cache_name):
    """A model and its passes, with two prompts of two tokens taken in."""
    model = Counting(cache_name)
    mask = torch.tensor([[0, 1], [1, 1]])
    passes = GenerationPasses(model, {cache_name: DynamicCache(), "attention_mask": mask, "position_ids": None})
    first = passes.first(torch.tensor([[1, 2], [3, 4]]), GenerationConfig())
    assert first.tolist() == [[1, 2], [3, 4]]
    return model, passes


@pytest.mark.parametrize("cache_name", ["cache", "past_key_values"])
def test_rows_are_doubled_and_left_out_whatever_the_cache_is_called(cache_name):
    model, passes = begun(cache_name)
    passes.choose(torch.tensor([1, 0, 1]))
    assert passes.next(torch.tensor([5, 6, 7])).tolist() == [[3, 4, 5], [1, 2, 6], [3, 4, 7]]
    passes.choose(torch.tensor([1, 2]))
    assert passes.next(torch.tensor([8, 9])).tolist() == [[1, 2, 6, 8], [3, 4, 7, 9]]
    assert passes._state["attention_mask"].tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert model.taken[1:] == [[[5], [6], [7]], [[8], [9]]]


def test_a_cache_under_another_name_is_answered_with_the_versions_that_are_known():
    _, passes = begun("memory")
    with pytest.raises(UserError, match=KNOWN):
        passes.choose(torch.tensor([0]))


def test_this_transformers_is_known():
    refuse_unknown_generate()


@pytest.mark.parametrize("method", ["_prefill", "_update_model_kwargs_for_generation", "prepare_inputs_for_generation"])
@pytest.mark.parametrize("change", ["gone", "other arguments"])
def test_a_method_of_generate_that_is_not_as_known_is_refused_before_a_model_is_opened(monkeypatch, method, change):
    if change == "gone":
        monkeypatch.delattr(GenerationMixin, method)
    else:
        monkeypatch.setattr(GenerationMixin, method, lambda self, everything: None)
    with pytest.raises(UserError, match=rf"GenerationMixin\.{method}(.|\n)*{KNOWN}"):
        hf.load("./nowhere")


def test_attention_that_is_chosen_in_another_way_is_answered_with_the_versions_that_are_known(tmp_path, monkeypatch):
    model = open_model(str(tiny.llava(tmp_path / "model")))
    monkeypatch.setattr("parityalign.models.attention._CHOICE", "_attention_of_some_day")
    with pytest.raises(UserError, match=KNOWN), recording_attention(model, [0]):
        pass


def test_attention_that_is_not_in_the_tables_is_answered_with_the_versions_that_are_known(tmp_path, monkeypatch):
    model = open_model(str(tiny.llava(tmp_path / "model")))
    monkeypatch.setattr("parityalign.models.attention.ALL_ATTENTION_FUNCTIONS", {})
    with pytest.raises(UserError, match=rf"attends \('sdpa'\)(.|\n)*{KNOWN}"), recording_attention(model, [0]):
        pass
    assert known("attends", {"sdpa": 1}, "sdpa") == 1


def test_a_part_that_has_moved_is_answered_with_the_versions_that_are_known(monkeypatch):
    monkeypatch.delattr("transformers.masking_utils.ALL_MASK_ATTENTION_FUNCTIONS")
    with pytest.raises(UserError, match=rf"ALL_MASK_ATTENTION_FUNCTIONS(.|\n)*{KNOWN}"):
        importlib.reload(internals)


def test_the_versions_that_are_named_are_those_that_are_installed_and_tested():
    needed = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"transformers>={OLDEST}" in needed
    pinned = re.search(r"^transformers==(\d+\.\d+)", (HERE / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and pinned[1] == NEWEST
