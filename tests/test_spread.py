"""A model that `device_map` spreads over several devices says and shows what it does on one."""

import pytest
import torch
from accelerate import dispatch_model

import tiny
from parityalign.config.loading import LoadingSettings
from parityalign.core.interfaces import Decoding, Request
from parityalign.models.backends._generate import GenerationPasses
from parityalign.models.backends._hf_model import HFModel
from parityalign.models.loading import open_model, open_processor

EXACT = LoadingSettings(workers=0, dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny.llava(tmp_path_factory.mktemp("model")))


def spread(folder, scratch, **devices):
    """The model in two parts: vision with the first layers, and the last layer with the head."""
    model = open_model(folder, EXACT, device="cpu")
    parts = ["model.vision_tower", "model.multi_modal_projector", "model.language_model.embed_tokens"]
    parts += [f"model.language_model.layers.{number}" for number in range(len(model.model.language_model.layers))]
    ends = [parts.pop(), "model.language_model.norm", "lm_head"]
    places = dict.fromkeys(parts, devices["first"]) | dict.fromkeys(ends, devices["second"])
    return dispatch_model(
        model, places, main_device=devices["main"], offload_dir=str(scratch), skip_keys="past_key_values"
    )


def answers(folder, model, images):
    opened = HFModel(folder, model, open_processor(folder, EXACT))
    requests = [Request(image, prompt) for image in images for prompt in ("what is the colour", "shape")]
    greedy, drawn = Decoding(12), Decoding(12, temperature=1.0)
    seen = opened.observe([(request, "red square") for request in requests])
    return opened.generate(requests, greedy), opened.generate(requests, drawn), seen


def test_weights_that_wait_on_the_disk_change_nothing(folder, tmp_path):
    images = tiny.drawn(tmp_path, 3)
    one = answers(folder, open_model(folder, EXACT, device="cpu"), images)
    two = answers(folder, spread(folder, tmp_path / "disk", first="disk", second="cpu", main="cpu"), images)
    assert two[:2] == one[:2] and len({*one[0]}) > 1
    for alone, apart in zip(one[2], two[2], strict=True):
        assert torch.equal(torch.from_numpy(alone.logprobs), torch.from_numpy(apart.logprobs))


def test_rows_of_the_cache_are_chosen_where_each_layer_is():
    class Layer:
        def __init__(self, device):
            self.keys = torch.empty(3, 1, 1, 1, device=device)

        def batch_select_indices(self, rows):
            assert rows.device == self.keys.device
            self.keys = self.keys[rows]

    class Cache:
        layers = [Layer("cpu"), Layer("meta")]

    mask = torch.ones(3, 2, device="meta")
    passes = GenerationPasses(None, {"past_key_values": Cache(), "attention_mask": mask})
    passes.choose(torch.tensor([2, 0, 0, 1]))
    assert [len(layer.keys) for layer in Cache.layers] == [4, 4] and len(passes._state["attention_mask"]) == 4


@pytest.mark.gpu
def test_two_devices_say_and_show_what_one_does(folder, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("takes a GPU beside the processor")
    images = tiny.drawn(tmp_path, 3)
    one = answers(folder, open_model(folder, EXACT, device="cpu"), images)
    for first, second, main in (("cpu", 0, "cpu"), (0, "cpu", "cpu")):
        model = spread(folder, tmp_path / "disk", first=first, second=second, main=main)
        two = answers(folder, model, images)
        assert two[:2] == one[:2]
        for alone, apart in zip(one[2], two[2], strict=True):
            torch.testing.assert_close(torch.from_numpy(alone.logprobs), torch.from_numpy(apart.logprobs))
