"""What a model attends to: the watched weights are the model's own, gradients flow, and nothing else changes."""

import pytest
import torch

import tiny
from parityalign.models.attention import readable_layers, recording_attention
from parityalign.models.encoding import Prompter, read_image
from parityalign.models.loading import open_model, open_processor
from parityalign.models.stacking import stack


@pytest.fixture(scope="module", params=["fast_vlm", "llava"])
def opened(request, tmp_path_factory):
    folder = str(getattr(tiny, request.param)(tmp_path_factory.mktemp(request.param)))
    return open_model(folder), Prompter(open_processor(folder))


@pytest.fixture(scope="module")
def batch(opened, tmp_path_factory):
    images = tiny.drawn(tmp_path_factory.mktemp("images"), 2)
    rows = [
        opened[1].encode(read_image(path), "what is the " + "shape " * (3 * place)) for place, path in enumerate(images)
    ]
    return stack(rows, pad_token=0, side="right")


def last_two(batch):
    ends = batch["attention_mask"].sum(dim=1)
    return torch.stack([ends - 2, ends - 1], dim=1)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_watched_weights_are_those_that_the_model_gives_itself(opened, batch, implementation):
    model, places = opened[0], last_two(batch)
    model.set_attn_implementation({"text_config": "eager"})
    whole = torch.stack(model(**batch, output_attentions=True).attentions).mean(dim=(0, 2))
    model.set_attn_implementation({"text_config": implementation})
    with recording_attention(model, [0, 1]) as recorder:
        recorder.select(places)
        model(**batch)
    for row in range(2):
        assert torch.allclose(recorder.weights[row], whole[row, places[row]], atol=1e-6)


def test_the_reply_of_a_watched_model_is_the_reply_of_an_unwatched_one(opened, batch):
    model = opened[0]
    with recording_attention(model, readable_layers(model)) as recorder:
        recorder.select(last_two(batch))
        watched = model(**batch).logits
    real = batch["attention_mask"].bool()
    assert torch.allclose(watched[real], model(**batch).logits[real], atol=1e-5)
    assert model.get_decoder().config._attn_implementation in ("eager", "sdpa")


def test_only_the_chosen_layers_are_watched(opened, batch):
    weights = []
    for layers in ([0], [1], [0, 1]):
        with recording_attention(opened[0], layers) as recorder:
            recorder.select(last_two(batch))
            opened[0](**batch)
            weights.append(recorder.weights)
    assert torch.allclose((weights[0] + weights[1]) / 2, weights[2])
    assert not torch.allclose(weights[0], weights[1])


def test_what_is_not_yet_written_and_padding_get_no_attention(opened, batch):
    places = torch.tensor([[0, 3], [5, -1]])
    with recording_attention(opened[0], [0, 1]) as recorder:
        recorder.select(places)
        opened[0](**batch)
    assert torch.allclose(recorder.weights.sum(dim=-1), torch.ones(2, 2))
    assert (recorder.weights[0, 1, 4:] == 0).all()
    assert (recorder.weights[1, 0, 6:] == 0).all()


def test_gradients_flow_from_the_weights_to_the_model_with_checkpointing_too(opened, batch):
    model = opened[0]
    query = model.get_decoder().layers[1].self_attn.q_proj.weight
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable()
            model.get_decoder().train()
        with recording_attention(model, [1]) as recorder:
            recorder.select(last_two(batch))
            model(**batch, use_cache=False)
            recorder.weights[:, :, 0].sum().backward()
        gradients.append(query.grad.clone())
        model.zero_grad()
    model.activation_checkpointing_disable()
    model.eval()
    assert gradients[0].abs().sum() > 0
    assert torch.allclose(*gradients)
