"""Models of transformers' real classes at tiny size: what they write, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import tiny
from parityalign.core.errors import UserError, WorkFailed
from parityalign.core.interfaces import Decoding, Request
from parityalign.models import pictures
from parityalign.models.backends import _batches, _hf_model, hf
from parityalign.models.encoding import read_image
from parityalign.models.limits import Room
from parityalign.models.open import load_model

GREEDY, SAMPLED = Decoding(12), Decoding(12, temperature=1.0)


@pytest.fixture(scope="module", params=["fast_vlm", "llava"])
def model(request, tmp_path_factory):
    loaded = hf.load(str(getattr(tiny, request.param)(tmp_path_factory.mktemp(request.param))))
    make_it_stop(loaded)
    return loaded


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch):
    """What one test's model learnt of memory is not for the next."""
    monkeypatch.setattr(_batches, "_learned", {})


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """Eight prompts of unequal length on six images of unequal size; two images have two."""
    images = tiny.drawn(tmp_path_factory.mktemp("images"), 6)
    return [
        Request(image, "what is the " + "red shape " * (number % 5) + "?", seed=number)
        for number, image in enumerate([*images, images[0], images[3]])
    ]


def make_it_stop(loaded: _hf_model.HFModel) -> None:
    """Makes the end token likely, so that rows of a batch end at different places."""
    with torch.no_grad():
        loaded._model.lm_head.weight[1] *= 2.5


def always_writes(loaded: _hf_model.HFModel, token: str) -> None:
    """Makes the model write one token for ever."""
    head = torch.nn.Linear(32, loaded._model.lm_head.out_features)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.bias[loaded._tokenizer.convert_tokens_to_ids(token)] = 1
    loaded._model.lm_head = head


def greedy_by_hand(loaded: _hf_model.HFModel, request: Request, steps: int) -> str:
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
    monkeypatch.setattr(model._budget, "room", Room(100, float("inf"), 100))
    assert model.generate(requests, GREEDY) == together


def test_draws_on_one_prompt_take_it_in_once(model, requests):
    seen = []
    layer = model._model.model.language_model.layers[0]
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape[:2])))
    draws = [Request(request.image, "what", seed=seed) for request in requests[:2] for seed in range(4)]
    together = model.generate(draws, SAMPLED)
    hook.remove()
    assert seen[0][0] == 2 and seen[1] == (8, 1)
    assert together == [model.generate([one], SAMPLED)[0] for one in draws]


def test_replies_that_ended_leave_the_batch(model, requests):
    seen = []
    layer = model._model.model.language_model.layers[0]
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[0]))
    model.generate(requests, GREEDY)
    hook.remove()
    written = seen[1:]  # behind the pictures' prefixes, which prompts share
    assert written == sorted(written, reverse=True) and written[-1] < written[0]


@pytest.mark.slow
def test_memory_that_runs_out_halves_the_batches_from_then_on(tmp_path, requests, monkeypatch):
    folder = str(tiny.fast_vlm(tmp_path / "model"))
    expected, sizes = hf.load(folder).generate(requests, GREEDY), []
    small = hf.load(folder)
    short_of_memory(monkeypatch, small, most=100, sizes=sizes)
    assert small.generate(requests, GREEDY) == expected
    assert max(sizes) > 100 and sizes[-1] <= 100
    sizes.clear()
    again = hf.load(folder)
    short_of_memory(monkeypatch, again, most=100, sizes=sizes)
    assert again.generate(requests, GREEDY) == expected
    assert max(sizes) <= 100, "what was learnt holds for the next model of that name"


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_single_row_that_does_not_fit_is_refused_with_what_helps(tmp_path, requests, monkeypatch, problem):
    model = hf.load(str(tiny.fast_vlm(tmp_path / "model")))
    short_of_memory(monkeypatch, model, most=0, sizes=[], problem=problem)
    with pytest.raises(UserError, match=r"single question, about .*png[\s\S]*quantise"):
        model.generate(requests, GREEDY)


def test_other_failures_of_the_model_are_not_taken_for_a_lack_of_memory(tmp_path, requests, monkeypatch):
    model = hf.load(str(tiny.fast_vlm(tmp_path / "model")))
    short_of_memory(monkeypatch, model, most=0, sizes=[], problem=RuntimeError("sizes do not match"))
    with pytest.raises(RuntimeError, match="do not match"):
        model.generate(requests, GREEDY)


def short_of_memory(monkeypatch, model, *, most, sizes, problem=None):
    """Lets the model fail as on a machine that holds `most` rows times tokens; notes what was tried."""
    plain = model._model.generate
    error = problem or RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes.")

    def generate(**inputs):
        sizes.append(inputs["input_ids"].numel())
        if sizes[-1] > most:
            raise error
        return plain(**inputs)

    monkeypatch.setattr(model._model, "generate", generate)


def test_what_was_announced_is_read_while_the_model_works(model, requests, monkeypatch):
    opened = []
    read = pictures.read_image
    monkeypatch.setattr(pictures, "read_image", lambda path: opened.append(path) or read(path))
    expected = model.generate(requests, GREEDY)
    opened.clear()
    fresh = loaded_anew(model)
    fresh.expect(requests[4:])
    first = fresh.generate(requests[:4], GREEDY)
    fresh.expect([])
    second = fresh.generate(requests[4:], GREEDY)
    assert first + second == expected
    assert sorted(opened) == sorted({request.image for request in requests}), "no image is opened twice"


def test_a_broken_image_that_was_announced_is_reported_when_it_is_asked_for(model, requests, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = Request(str(tmp_path / "broken.png"), "what")
    model.expect([broken])
    assert len(model.generate(requests[:2], GREEDY)) == 2
    with pytest.raises(WorkFailed, match="broken.png"):
        model.generate([broken], GREEDY)


def test_an_image_with_several_prompts_is_encoded_once(model, requests):
    fresh, seen = loaded_anew(model), []
    tower = fresh._model.model.vision_tower
    tower.register_forward_hook(lambda module, inputs, output: seen.append(output[0].shape[0]))
    fresh.generate(requests, GREEDY)
    assert sum(seen) == 6


def loaded_anew(model):
    """The same, which has seen nothing yet."""
    loaded = hf.load(model.name.removeprefix("hf:"))
    make_it_stop(loaded)
    return loaded


def test_another_image_gives_another_reply(model, requests, tmp_path):
    Image.new("RGB", (40, 40), "black").save(tmp_path / "blank.png")
    prompts = {request.prompt for request in requests}
    seen = model.generate([Request(requests[1].image, prompt) for prompt in sorted(prompts)], GREEDY)
    blank = model.generate([Request(str(tmp_path / "blank.png"), prompt) for prompt in sorted(prompts)], GREEDY)
    assert seen != blank


def test_no_requests_give_no_replies(model):
    assert model.generate([], GREEDY) == []


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
    assert model._model.dtype == torch.float32
    assert len(model.generate(requests, GREEDY)) == len(requests)


def test_a_prompt_with_an_image_place_in_it_is_read_as_text(model, requests):
    odd = model._prompter.encode(read_image(requests[0].image), "what is <image> in </s> ?")
    plain = model._prompter.encode(read_image(requests[0].image), "what is")
    for token in ("<image>", "</s>"):
        number = model._tokenizer.convert_tokens_to_ids(token)
        assert odd.tokens.count(number) == plain.tokens.count(number), token
    spelt = [piece.removeprefix("##") for piece in model._tokenizer.convert_ids_to_tokens(odd.tokens)]
    assert "whatis<image>in</s>?" in "".join(spelt)


def test_the_name_says_where_the_model_is(model, tmp_path, monkeypatch):
    assert model.name.startswith("hf:/")
    monkeypatch.setattr(_hf_model, "EMBEDDED_MODELS", tmp_path)
    assert hf.load(str(tiny.fast_vlm(tmp_path / "teacher"))).name == "embedded:teacher"


def test_the_plugin_loader_finds_it(tmp_path):
    folder = tiny.fast_vlm(tmp_path / "model")
    assert load_model(f"hf:{folder}").name == f"hf:{folder}"


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
    with pytest.raises(UserError, match="is not a vision-language model"):
        hf.load(str(folder))


def test_a_model_without_chat_template_is_refused(tmp_path):
    folder = tiny.fast_vlm(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        hf.load(str(folder))


def test_what_a_model_shows_of_its_own_greedy_reply_are_the_likeliest_tokens(model, requests):
    replies = model.generate(requests, Decoding(4))
    shown = model.observe(list(zip(requests, replies, strict=True)))
    for seen in shown:
        # Four tokens were written, or fewer and the end token.
        written = len(seen.ids) - 1 if len(seen.ids) > 4 else len(seen.ids)
        assert seen.top_ids[:written, 0].tolist() == seen.ids[:written].tolist()
    assert sum(len(seen.ids) for seen in shown) > 2 * len(shown)


def test_what_a_model_shows_does_not_hang_on_its_batch(model, requests):
    told = [(request, "red square " * (place % 3 + 1)) for place, request in enumerate(requests)]
    together, alone = model.observe(told), [model.observe([one])[0] for one in told]
    for one, other in zip(together, alone, strict=True):
        assert np.allclose(one.logprobs, other.logprobs, atol=2e-3)
        assert np.allclose(one.places, other.places, atol=2e-3)


def test_processes_that_prepare_pictures_end_where_the_model_cannot_be_loaded(tmp_path, monkeypatch):
    class Processes:
        def close(self):
            closed.append(True)

    closed = []
    monkeypatch.setattr(_hf_model, "processes_for", lambda *_: Processes())
    monkeypatch.setattr(_hf_model, "open_model", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _hf_model.load_hf(str(tiny.llava(tmp_path / "model")))
    assert closed == [True]
