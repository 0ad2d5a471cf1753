"""Models of transformers' real classes at tiny size: what they write, and what is refused."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from parityalign import plugins
from parityalign.errors import UserError
from parityalign.models import hf
from parityalign.seams import Decoding, Request

GREEDY, SAMPLED = Decoding(12), Decoding(12, temperature=1.0)


@pytest.fixture(scope="module", params=["fast_vlm", "llava"])
def model(request, tmp_path_factory):
    loaded = hf.load(str(getattr(tiny, request.param)(tmp_path_factory.mktemp(request.param))))
    make_it_stop(loaded)
    return loaded


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """Eight prompts of unequal length on six images of unequal size; two images have two."""
    images = tiny.drawn(tmp_path_factory.mktemp("images"), 6)
    return [
        Request(image, "what is the " + "red shape " * (number % 5) + "?", seed=number)
        for number, image in enumerate([*images, images[0], images[3]])
    ]


def make_it_stop(loaded: hf.HFModel) -> None:
    """Makes the end token likely, so that rows of a batch end at different places."""
    with torch.no_grad():
        loaded._model.lm_head.weight[1] *= 2.5


def always_writes(loaded: hf.HFModel, token: str) -> None:
    """Makes the model write one token for ever."""
    head = torch.nn.Linear(32, loaded._model.lm_head.out_features)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[loaded._tokenizer.convert_tokens_to_ids(token)] = 1
    loaded._model.lm_head = head


def greedy_by_hand(loaded: hf.HFModel, request: Request, steps: int) -> str:
    """Greedy search without cache, padding or batch."""
    processor = tiny.processor()
    if loaded._model.config.model_type == "llava":
        processor = tiny.processor(select="default", extra=1)
    chat = f"<|user|><image>{request.prompt}<|assistant|>"
    inputs = processor(images=[Image.open(request.image)], text=[chat], return_tensors="pt")
    tokens, written = inputs["input_ids"], []
    for _ in range(steps):
        logits = loaded._model(input_ids=tokens, pixel_values=inputs["pixel_values"], use_cache=False).logits
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == processor.tokenizer.eos_token_id:
            written.pop()
            break
        tokens = torch.cat([tokens, torch.tensor([[written[-1]]])], dim=1)
    return processor.tokenizer.decode(written).strip()


def test_a_batch_of_one_writes_what_a_batch_of_eight_writes(model, requests):
    assert model.generate(requests, GREEDY) == [model.generate([one], GREEDY)[0] for one in requests]


def test_greedy_text_is_what_a_search_by_hand_finds(model, requests):
    texts = model.generate(requests, GREEDY)
    assert texts == [greedy_by_hand(model, request, GREEDY.max_new_tokens) for request in requests]
    assert len({len(text.split()) for text in texts}) > 1, "rows should end at different places"


def test_a_draw_hangs_on_its_seed_and_not_on_its_batch(model, requests):
    together = model.generate(requests, SAMPLED)
    assert together == [model.generate([one], SAMPLED)[0] for one in requests]
    assert together == model.generate(requests[::-1], SAMPLED)[::-1]
    assert together != model.generate(requests, GREEDY)


def test_other_seeds_give_other_draws(model, requests):
    drawn = model.generate([Request(requests[0].image, "what", seed=seed) for seed in range(8)], SAMPLED)
    assert len(set(drawn)) > 1


def test_several_batches_give_back_what_one_does(model, requests, monkeypatch):
    together = model.generate(requests, GREEDY)
    monkeypatch.setattr(hf, "TOKENS_PER_BATCH", 100)
    assert model.generate(requests, GREEDY) == together


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, hf.TOKENS_PER_BATCH * 2), max_size=30))
def test_batches_hold_every_row_once_and_not_too_many_tokens(lengths):
    batches = list(hf._batches(lengths))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[place] for place in batch) * len(batch) <= hf.TOKENS_PER_BATCH


def test_an_image_with_several_prompts_is_encoded_once(model, requests):
    seen = []
    tower = model._model.model.vision_tower
    hook = tower.register_forward_hook(lambda module, inputs, output: seen.append(output[0].shape[0]))
    model.generate(requests, GREEDY)
    hook.remove()
    assert sum(seen) == 6


def test_another_image_gives_another_reply(model, requests, tmp_path):
    Image.new("RGB", (40, 40), "black").save(tmp_path / "blank.png")
    prompts = {request.prompt for request in requests}
    seen = model.generate([Request(requests[1].image, prompt) for prompt in sorted(prompts)], GREEDY)
    blank = model.generate([Request(str(tmp_path / "blank.png"), prompt) for prompt in sorted(prompts)], GREEDY)
    assert seen != blank


def test_no_requests_give_no_replies(model):
    assert model.generate([], GREEDY) == []


def test_sampling_is_exact():
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0])
    draws = 20_000
    noisy = hf.GumbelNoise(range(draws), 0.5, torch.device("cpu"))(torch.empty(0), logits.expand(draws, 4).clone())
    found = torch.bincount(noisy.argmax(dim=-1), minlength=4) / draws
    expected = torch.softmax(logits / 0.5, dim=-1)
    assert torch.allclose(found, expected, atol=0.012)  # over three standard deviations


def test_special_tokens_that_the_model_writes_stay_visible(tmp_path, requests):
    model = hf.load(str(tiny.fast_vlm(tmp_path / "model")))
    always_writes(model, "<image>")
    assert "<image>" in model.special_tokens
    assert model.generate(requests[:1], Decoding(2)) == ["<image> <image>"]


@pytest.mark.parametrize("token", ["</s>", "<pad>"])
def test_end_and_padding_are_no_part_of_the_reply(tmp_path, requests, token):
    model = hf.load(str(tiny.fast_vlm(tmp_path / "model")))
    always_writes(model, token)
    assert model.generate(requests[:2], GREEDY) == ["", ""]


def test_padding_with_the_end_token_changes_nothing(tmp_path, requests):
    texts = []
    for pad in ("<pad>", "</s>"):
        model = hf.load(str(tiny.fast_vlm(tmp_path / "model", pad=pad)))
        make_it_stop(model)
        texts.append(model.generate(requests, GREEDY))
    assert texts[0] == texts[1]


def test_sampling_habits_of_the_folder_do_not_leak_in(tmp_path, requests):
    folder = tiny.fast_vlm(tmp_path / "model")
    plain = hf.load(str(folder)).generate(requests, GREEDY)
    habits = json.loads((folder / "generation_config.json").read_text())
    habits |= {"repetition_penalty": 9.0, "do_sample": True, "temperature": 3.0, "max_new_tokens": 1}
    (folder / "generation_config.json").write_text(json.dumps(habits))
    assert hf.load(str(folder)).generate(requests, GREEDY) == plain


def test_a_model_in_half_precision_runs_in_single_precision_on_a_cpu(tmp_path, requests):
    model = hf.load(str(tiny.fast_vlm(tmp_path / "model", dtype=torch.float16)))
    if not torch.cuda.is_available():
        assert model._model.dtype == torch.float32
    assert len(model.generate(requests, GREEDY)) == len(requests)


def test_a_prompt_with_an_image_place_in_it_is_read_as_text(model, requests):
    odd = Request(requests[0].image, "what is <image> in </s> ?")
    assert len(model.generate([odd, requests[0]], GREEDY)) == 2


def test_the_name_says_where_the_model_is(model, tmp_path, monkeypatch):
    assert model.name.startswith("hf:/")
    monkeypatch.setattr(hf, "EMBEDDED_MODELS", tmp_path)
    assert hf.load(str(tiny.fast_vlm(tmp_path / "teacher"))).name == "embedded:teacher"


def test_the_plugin_loader_finds_it(tmp_path):
    folder = tiny.fast_vlm(tmp_path / "model")
    assert plugins.load_model(f"hf:{folder}").name == f"hf:{folder}"


def test_nothing_reaches_the_terminal(tmp_path, requests, capfd):
    folder = tiny.fast_vlm(tmp_path / "model")
    capfd.readouterr()
    hf.load(str(folder)).generate(requests, SAMPLED)
    assert capfd.readouterr() == ("", "")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="missing"):
        hf.load(str(tmp_path / "nowhere"))


def test_torn_weights_are_refused(tmp_path):
    folder = tiny.fast_vlm(tmp_path / "model")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot load"):
        hf.load(str(folder))


def test_weights_that_are_not_all_there_are_refused(tmp_path):
    folder = tiny.fast_vlm(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.multi_modal_projector.linear_1.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights, such as model\.multi_modal_projector"):
        hf.load(str(folder))


def test_a_language_model_without_eyes_is_refused(tmp_path):
    folder = tiny.fast_vlm(tmp_path / "model")
    sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    shutil.rmtree(tmp_path / "text", ignore_errors=True)
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path / "text")
    shutil.copy(tmp_path / "text" / "config.json", folder)
    with pytest.raises(UserError, match="cannot load a vision-language model"):
        hf.load(str(folder))


def test_a_model_without_chat_template_is_refused(tmp_path):
    folder = tiny.fast_vlm(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        hf.load(str(folder))
