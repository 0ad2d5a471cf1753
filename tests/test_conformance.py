"""Every family of models that we promise, held to the same checks: `make conformance` makes a table of them."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList

import families
import tiny
from families import PATCH, write
from newer_families import LONG_FAMILIES
from parityalign.config.loading import LoadingSettings
from parityalign.core.errors import UserError
from parityalign.core.interfaces import Decoding, Request
from parityalign.models.backends import _hf_model, hf
from parityalign.models.backends._decoding import can_choose_rows
from parityalign.models.encoding import Prompter, read_image, stop_tokens
from parityalign.models.loading import open_model, open_processor
from parityalign.models.stacking import stack
from parityalign.training.bundles import Limits, cut
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.sharing import tried_sharing
from parityalign.training.student import add_lora, open_student, save_student

pytestmark = pytest.mark.slow  # every question is asked of every family

FAMILIES = [*families.FAMILIES, *LONG_FAMILIES]
SIZES = ((60, 60), (150, 50), (40, 110), (100, 90))
QUESTIONS = ("what is the colour ?", "shape ?", "what is the shape of the red square é", "is the green square red?")
ANSWERS = ("red", "a blue square", "42.5%", "é", "green", "7", "the answer", "red?")
FIXED = {"LLaVA", "PaliGemma", "Gemma 3", "FastVLM"}
"""Families that resize every picture to one size."""
TYPES = "Types of its tokens decide which of them see each other; each question has its row."
APART = {
    **dict.fromkeys(("PaliGemma", "Gemma 3", "Gemma 4", "Molmo2"), TYPES),
    **dict.fromkeys(
        ("Qwen3.5", "LFM3-VL", "MiniCPM-V 4.6", "LFM2-VL"),
        "States of recurrent layers run through a whole row; each question has its own.",
    ),
}
"""Why questions about one picture have rows of their own."""
CLOSE = {"atol": 2e-4, "rtol": 1e-4}


def _named(family):
    marks = pytest.mark.long if family in LONG_FAMILIES else ()
    return pytest.param(family, id=family.name, marks=marks)


@pytest.fixture(scope="session", params=map(_named, FAMILIES))
def family(request):
    return request.param


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {family.name: str(write(root / family.name, family)) for family in FAMILIES}


@pytest.fixture(scope="session")
def folder(folders, family):
    return folders[family.name]


@pytest.fixture(scope="session")
def model(folder):
    """As `hf.load` opens it; replies are spelt token by token, since bytes that are no letters all read alike."""
    processor = open_processor(folder)
    spell = processor.tokenizer.convert_ids_to_tokens
    processor.tokenizer.decode = lambda tokens, **_: " ".join(spell(tokens))
    return _hf_model.HFModel(folder, open_model(folder), processor)


@pytest.fixture(scope="session")
def rows(folder, model):
    return AnswerCollator(open_processor(folder), stops(folder))


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """Eight pictures of unequal size with questions and answers of unequal length."""
    pictures = tiny.drawn(tmp_path_factory.mktemp("pictures"), 8, sizes=SIZES)
    return [Example(path, QUESTIONS[i % 3 + i // 6], ANSWERS[i]) for i, path in enumerate(pictures)]


@pytest.fixture(scope="session")
def plain(folders, tmp_path_factory, examples):
    """What a process without any code of ours says of students that were saved by it."""
    root = tmp_path_factory.mktemp("saved")
    for name, folder in folders.items():
        save_student(folder, open_student(folder), root / name)
        batch = AnswerCollator(open_processor(folder), stops(folder))(examples[:2])
        inputs = {key: value.numpy() for key, value in batch.items() if key != "labels"}
        np.savez(root / name / "inputs.npz", **inputs)
    script = Path(__file__).with_name("plain_transformers.py")
    subprocess.run([sys.executable, "-I", str(script), str(root), examples[0].image, examples[0].prompt], check=True)
    return root


def stops(folder):
    return stop_tokens(open_processor(folder).tokenizer, open_model(folder).generation_config)


def logits(model, batch):
    with torch.inference_mode():
        return model(**{key: value for key, value in batch.items() if key != "labels"}, use_cache=False).logits


def log_probs(model, batch):
    """The log-probability of each row's answer tokens, the end token among them."""
    spread = torch.log_softmax(logits(model, batch)[:, :-1], dim=-1)
    labels = batch["labels"][:, 1:]
    taken = spread.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return [row[marked] for row, marked in zip(taken, labels != -100, strict=True)]


def prompts_given(model, requests):
    """The token ids and masks that the model gets first when it is asked all requests at once."""
    seen = []
    hook = model._model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    model.generate(requests, Decoding(1))
    hook.remove()
    return seen


class Says(LogitsProcessor):
    """Lets `generate` choose nothing but the given tokens."""

    def __init__(self, tokens, start):
        self.tokens, self.start = tokens, start

    def __call__(self, input_ids, scores):
        now = torch.tensor(self.tokens[input_ids.shape[1] - self.start])
        return torch.full_like(scores, -math.inf).index_fill(1, now, 0.0)


def seen(encoded):
    """Pixels that go into the vision tower; Qwen's takes each of them twice, as two frames, LFM2-VL's no padding."""
    if "spatial_shapes" in encoded.image:
        return int(encoded.image["spatial_shapes"].prod(axis=1).sum()) * PATCH**2
    frames = 2 if "image_grid_thw" in encoded.image else 1
    return encoded.image["pixel_values"].size // 3 // frames


def shown(processor, example):
    """An example's prompt as transformers itself puts it."""
    content = [{"type": "image", "image": read_image(example.image)}, {"type": "text", "text": example.prompt}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",  # without it Ovis2's processor fails in transformers 5.24
    )
    return inputs["input_ids"].flatten().tolist()


def asked(example):
    return Request(example.image, example.prompt)


@pytest.mark.check("a batch of one writes what a batch of eight writes")
def test_a_batch_of_one_writes_what_a_batch_of_eight_writes(model, examples):
    requests = [asked(example) for example in examples]
    together = model.generate(requests, Decoding(10))
    assert together == [model.generate([request], Decoding(10))[0] for request in requests]
    assert len(set(together)) > 4, "an untrained model should say something else of each picture"
    assert len({len(text.split()) for text in together}) > 1, "rows should end at different places"


@pytest.mark.check("a prompt is read once for all replies to it, and rows that ended leave the batch")
def test_replies_to_one_prompt_share_it_where_the_cache_can_be_cut_by_rows(model, examples, record_property):
    one, other = map(asked, examples[:2])
    together = model.generate([one, other, one], Decoding(6))
    assert together == [model.generate([request], Decoding(6))[0] for request in (one, other, one)]
    choosing = can_choose_rows(model._model)
    (first, *_) = prompts_given(model, [one, other, one])
    assert len(first["input_ids"]) == (2 if choosing else 3)
    if not choosing:
        record_property("note", "States of recurrent layers cannot be cut by rows: each reply reads its own prompt.")


@pytest.mark.check("left padding for generating, right for training; it changes nothing")
def test_padding_is_on_its_side_and_changes_nothing(model, rows, examples):
    for given in prompts_given(model, [asked(example) for example in examples]):
        assert given["attention_mask"][:, -1].all()
    batch = rows(examples)
    assert batch["attention_mask"][:, 0].all()
    assert not batch["attention_mask"].all()
    together = logits(model._model, batch)
    for row, example in zip(together, examples, strict=True):
        alone = logits(model._model, rows([example]))[0]
        torch.testing.assert_close(row[: len(alone)], alone, **CLOSE)


@pytest.mark.check("the loss is on the answer and its end token")
@pytest.mark.parametrize("pad_is_end", [False, True], ids=["own pad", "pad is end"])
def test_the_loss_is_on_the_answer_and_its_end_token_only(folder, family, examples, pad_is_end):
    processor = open_processor(folder)
    if pad_is_end:
        processor.tokenizer.pad_token = family.answer_ends
    ids = processor.tokenizer.convert_tokens_to_ids
    batch = AnswerCollator(processor, stops(folder))(examples)
    for example, tokens, mask, labels in zip(
        examples, *(batch[key].tolist() for key in ("input_ids", "attention_mask", "labels")), strict=True
    ):
        length = sum(mask)
        first = next(place for place, label in enumerate(labels) if label != -100)
        assert labels[first:length] == tokens[first:length]
        assert set(labels[:first] + labels[length:]) <= {-100}
        *answer, end = labels[first:length]
        assert end == ids(family.answer_ends)
        assert processor.tokenizer.decode(answer).strip() == example.answer
        assert not {*answer} & {*map(ids, processor.tokenizer.all_special_tokens)}


@pytest.mark.check("training prompts are those of inference, and transformers' own")
def test_the_prompt_is_the_same_in_training_in_inference_and_in_transformers(folder, model, rows, examples):
    processor = open_processor(folder)
    for example in examples:
        expected = shown(processor, example)
        (given, *_) = prompts_given(model, [asked(example)])
        assert given["input_ids"][0].tolist() == expected
        row = rows([example])
        assert row["input_ids"][row["labels"] == -100].tolist() == expected


@pytest.mark.check("log-probabilities in training are those of decoding")
@pytest.mark.parametrize("cache", [False, True], ids=["no cache", "cache"])
def test_an_answer_is_as_likely_in_training_as_in_decoding(folder, model, rows, examples, cache):
    prompter = Prompter(open_processor(folder))
    together = log_probs(model._model, rows(examples))
    for example, found in zip(examples, together, strict=True):
        trained = rows.row_of(example).encoded
        prompt = prompter.encode(read_image(example.image), example.prompt)
        answer = [label for label in trained.per_token["labels"] if label != -100]
        said = model._model.generate(
            **stack([prompt], pad_token=0, side="left"),
            logits_processor=LogitsProcessorList([Says(answer, len(prompt.tokens))]),
            max_new_tokens=len(answer),
            use_cache=cache,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        spread = torch.log_softmax(torch.cat(said.logits), dim=-1)
        expected = spread.gather(1, torch.tensor(answer)[:, None])[:, 0]
        torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.check("each row sees only its own picture")
def test_each_row_sees_its_own_picture_and_no_other(model, rows, examples, tmp_path):
    Image.new("RGB", SIZES[0], "grey").save(tmp_path / "blank.png")
    one, other, third = examples[:3]
    with_picture = lambda example, image: Example(str(image), example.prompt, example.answer)  # noqa: E731
    pair = log_probs(model._model, rows([one, other]))
    swapped = log_probs(model._model, rows([with_picture(one, other.image), with_picture(other, one.image)]))
    blank = log_probs(model._model, rows([with_picture(one, tmp_path / "blank.png"), other]))
    for before, after in ((pair[0], swapped[0]), (pair[1], swapped[1]), (pair[0], blank[0])):
        assert (before - after).abs().max() > 1e-2
    torch.testing.assert_close(blank[1], pair[1], **CLOSE)
    torch.testing.assert_close(log_probs(model._model, rows([third, one]))[1], pair[0], **CLOSE)


@pytest.mark.check("saved, opened again and with an adapter merged it says the same")
def test_saving_and_merging_keep_what_the_student_says(folder, rows, examples, tmp_path):
    batch = rows(examples[:3])
    before = logits(open_student(folder), batch)
    save_student(folder, open_student(folder), tmp_path / "same")
    torch.testing.assert_close(logits(open_student(str(tmp_path / "same")), batch), before, **CLOSE)
    adapted = add_lora(open_student(folder), rank=2).eval()
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    after = logits(adapted, batch)
    assert (after - before).abs().max() > 1e-2
    save_student(folder, adapted.merge_and_unload(), tmp_path / "merged")
    torch.testing.assert_close(logits(open_student(str(tmp_path / "merged")), batch), after, **CLOSE)


@pytest.mark.check("a limit of pixels is respected and saves tokens")
def test_a_limit_on_pixels_is_kept(folder, family, examples, record_property):
    image = read_image(examples[3].image)
    whole = Prompter(open_processor(folder)).encode(image, "what")
    loading = LoadingSettings(max_pixels=seen(whole) * 3 // 4)
    if family.name in FIXED:
        record_property("note", "Every picture has the same number of pixels and tokens; a lower limit is refused.")
        with pytest.raises(UserError, match="always uses"):
            open_processor(folder, loading)
        return
    limited = Prompter(open_processor(folder, loading)).encode(image, "what")
    assert seen(limited) <= loading.max_pixels
    assert len(limited.tokens) < len(whole.tokens)
    assert len(hf.load(folder, loading).generate([asked(example) for example in examples], Decoding(2))) == 8


@pytest.mark.check("questions about one picture share a row in training: loss and gradients are those of rows apart")
def test_questions_about_one_picture_share_a_row_in_training(folder, family, rows, examples, record_property):
    asked = [replace(each, image=examples[place % 2].image) for place, each in enumerate(examples[:6])]
    model = open_student(folder)
    sharing = tried_sharing(model, rows, asked)
    assert bool(sharing) == (family.name not in APART)
    if sharing is None:
        record_property("instead", "apart")
        record_property("note", APART[family.name])
        return
    found = []
    for prefix in (None, sharing.prefix):
        parts = cut(rows.rows(rows.begin(asked)), Limits(2**40, len(asked)), patch=PATCH, prefix=prefix)
        batch = rows.batch([bundle for part in parts for bundle in part.bundles], sharing)
        assert len(batch["input_ids"]) == (2 if prefix else 6)
        model.zero_grad()
        loss = tiny.ANSWER(model, batch)
        loss.backward()
        found.append(
            (loss.detach(), torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]))
        )
    (loss, gradient), (other_loss, other_gradient) = found
    torch.testing.assert_close(other_loss, loss, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(other_gradient, gradient, atol=3e-5 * float(gradient.abs().max()), rtol=1e-3)


@pytest.mark.long
@pytest.mark.check("plain transformers opens a saved student")
def test_a_saved_student_opens_with_plain_transformers(folder, family, plain, rows, examples, record_property):
    said = json.loads((plain / family.name / "said.json").read_text())
    expected = logits(open_student(folder), rows(examples[:2]))
    torch.testing.assert_close(torch.tensor(said["logits"]), expected, **CLOSE)
    assert said["template"] == open_processor(folder).chat_template
    assert said["pixels"] == list(rows.row_of(examples[0]).encoded.image["pixel_values"].shape)
    if said["refused"]:
        record_property("note", "Its processor as a whole needs torchvision there; tokenizer and image processor open.")
        assert "torchvision" in said["refused"].lower()
    else:
        row = rows([examples[0]])
        assert said["processor"] == family.processor
        assert said["tokens"] == row["input_ids"][row["labels"] == -100].tolist()


def test_a_question_without_a_picture_is_answered_from_its_text_alone(model):
    prompts = ["Do they mean the same? yes or no", "red? " * 7]
    alone = [model.generate([Request("", prompt)], Decoding(5))[0] for prompt in prompts]
    assert model.generate([Request("", prompt) for prompt in prompts], Decoding(5)) == alone
    tokens = torch.tensor([model._prompter.tokens(prompts[0], image=False)])
    with torch.inference_mode():
        first = int(model._model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[0, -1].argmax())
    said = "" if first in model._stop else model._tokenizer.decode([first])
    assert alone[0].startswith(model._begun + said) and bool(said) == (alone[0] != model._begun)
