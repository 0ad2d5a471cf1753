"""The decoding loop and the reading of prompts, held against transformers' own for every family."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import tiny
from families import FAMILIES, write
from parityalign.core.errors import WorkFailed
from parityalign.core.interfaces import Decoding, Request
from parityalign.models.backends import _batches, _drawing, _hf_model, hf
from parityalign.models.backends._batches import BatchRow, Budget, patches, windows
from parityalign.models.backends._decoding import can_choose_rows, can_share_prefixes
from parityalign.models.backends._drawing import Draws
from parityalign.models.backends._prefixes import split_prompts
from parityalign.models.encoding import Encoded, Prompter, read_image
from parityalign.models.limits import Room
from parityalign.models.loading import open_processor
from parityalign.models.pictures import Pictures, with_other_prompt
from parityalign.models.stacking import stack

SIZES = ((60, 60), (150, 50), (40, 110))
PROMPTS = ("what is the colour ?", "shape ?", "what is the shape of the red square")
TOKENS = 10


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def folder(request, tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("families") / request.param.name, request.param))


@pytest.fixture(scope="module")
def model(folder):
    loaded = hf.load(folder)
    spell = loaded._tokenizer.convert_ids_to_tokens
    loaded._tokenizer.decode = lambda tokens, **_: " ".join(spell(tokens))
    return loaded


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.drawn(tmp_path_factory.mktemp("images"), 3, sizes=SIZES)


class ByInverse(LogitsProcessor):
    """Leaves of transformers' narrowed scores the token that a uniform number picks."""

    def __init__(self, seed: int) -> None:
        self.numbers = iter(np.random.default_rng(seed).random(TOKENS, dtype=np.float32).tolist())

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        likely = np.exp(scores[0].double().log_softmax(-1).numpy())
        picked = np.flatnonzero(likely.cumsum() > next(self.numbers))[0]
        left = torch.full_like(scores, -torch.inf)
        left[0, picked] = 0
        return left


def by_plain_generate(model: _hf_model.HFModel, request: Request, decoding: Decoding) -> tuple[str, float]:
    """One prompt through the processor and transformers' own loop: the reply and its log-probability."""
    row = model._prompter.encode(read_image(request.image), request.prompt)
    inputs = stack([row], pad_token=model._pad, side="left")
    noise = LogitsProcessorList()
    if decoding.temperature:
        narrowed = [TopKLogitsWarper(decoding.top_k)] if decoding.top_k else []
        noise += [TemperatureLogitsWarper(decoding.temperature), *narrowed, TopPLogitsWarper(decoding.top_p)]
        noise.append(ByInverse(request.seed))
    with torch.inference_mode():
        made = model._model.generate(
            **inputs,
            max_new_tokens=decoding.max_new_tokens,
            logits_processor=noise,
            output_logits=True,
            return_dict_in_generate=True,
        )
    tokens = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    logprobs = [
        logits[0].double().log_softmax(0)[token].item() for token, logits in zip(tokens, made.logits, strict=True)
    ]
    return model._text(tokens), sum(logprobs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "decoding",
    [
        pytest.param(Decoding(TOKENS), id="greedy"),
        pytest.param(Decoding(TOKENS, temperature=2.0), id="drawn", marks=pytest.mark.long),
        pytest.param(Decoding(TOKENS, 2.0, top_p=0.7, top_k=30), id="narrowed"),
    ],
)
def test_replies_and_their_log_probabilities_are_those_of_transformers_own_loop(model, images, decoding):
    requests = [Request(image, prompt, seed) for image in images for prompt in PROMPTS[:2] for seed in range(2)]
    requests.append(Request(images[0], PROMPTS[2], seed=9))
    seeds_matter = decoding.temperature > 0
    replies = {
        (request.image, request.prompt, request.seed * seeds_matter): by_plain_generate(model, request, decoding)
        for request in (requests if seeds_matter else requests[::2])
    }
    texts, logprobs = zip(
        *(replies[request.image, request.prompt, request.seed * seeds_matter] for request in requests), strict=True
    )
    assert can_choose_rows(model._model)
    found = model.generate_scored(requests, decoding)
    assert [text for text, _ in found] == [*texts] == model.generate(requests, decoding)
    assert [logprob for _, logprob in found] == pytest.approx(logprobs, abs=1e-3)


@pytest.mark.slow
def test_a_family_whose_cache_cannot_be_cut_writes_the_same(model, images, monkeypatch):
    requests = [Request(image, prompt) for image in images for prompt in PROMPTS[:2]]
    expected = model.generate_scored(requests, Decoding(TOKENS))
    monkeypatch.setattr("parityalign.models.backends._decoding.can_choose_rows", lambda model: False)
    monkeypatch.setattr(model, "_shares", False)
    found = model.generate_scored([*requests, requests[0]], Decoding(TOKENS))
    assert [text for text, _ in found] == [text for text, _ in [*expected, expected[0]]]
    assert [told for _, told in found] == pytest.approx([told for _, told in [*expected, expected[0]]], abs=1e-3)


LIKELY = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.04]).log()
DRAWS = 4000


@pytest.mark.parametrize(
    ("narrowed", "left"),
    [
        ({"top_p": 0.6}, [0.4, 0.25]),
        ({"top_p": 0.01}, [0.4]),
        ({"top_k": 3}, [0.4, 0.25, 0.15]),
        ({"top_k": 9}, [0.4, 0.25, 0.15, 0.1, 0.06, 0.04]),
        ({"top_k": 4, "top_p": 0.85}, [0.4, 0.25, 0.15]),  # 0.89 of what the four have together
    ],
)
def test_draws_are_among_the_likeliest_tokens_in_proportion_to_their_probabilities(narrowed, left):
    draws = Draws(range(DRAWS), Decoding(2, 1.0, **narrowed), torch.device("cpu"))
    for _ in range(2):  # of each row the first number, and the second
        drawn = torch.bincount(draws.next(LIKELY.expand(DRAWS, -1)), minlength=len(LIKELY))
        assert not drawn[len(left) :].any()
        expected = DRAWS * np.array(left) / sum(left)
        assert chisquare(drawn[: len(left)].numpy(), expected).pvalue > 1e-3 or len(left) == 1


def test_a_temperature_changes_the_distribution_as_it_is_defined():
    scores = torch.tensor([2.0, 0.0, -1.0, 1.0])
    drawn = Draws(range(DRAWS), Decoding(1, 0.5), torch.device("cpu")).next(scores.expand(DRAWS, -1))
    expected = DRAWS * (scores.double() / 0.5).softmax(0).numpy()
    assert chisquare(torch.bincount(drawn, minlength=4).numpy(), expected).pvalue > 1e-3


def test_a_nucleus_may_hold_more_tokens_than_are_looked_at_first(monkeypatch):
    monkeypatch.setattr(_drawing, "_MOSTLY_ENOUGH", 2)
    test_draws_are_among_the_likeliest_tokens_in_proportion_to_their_probabilities({"top_p": 0.6}, [0.4, 0.25])
    test_draws_are_among_the_likeliest_tokens_in_proportion_to_their_probabilities(
        {"top_p": 0.85}, [0.4, 0.25, 0.15, 0.1]
    )


@pytest.mark.parametrize("how", [{"temperature": 0.8, "top_p": 0.9, "top_k": 50}, {"top_p": 0.7}, {}], ids=str)
def test_a_draw_hangs_on_its_seed_alone(how, monkeypatch):
    monkeypatch.setattr(_drawing, "_MOSTLY_ENOUGH", 10)  # some rows need more
    how = Decoding(3, **{"temperature": 1.0, **how})
    scores = torch.randn(40, 300, generator=torch.Generator().manual_seed(1)) * 3
    together = Draws(range(40), how, torch.device("cpu"))
    first = together.next(scores)
    kept = torch.tensor([3, 17, 30])
    together.keep(kept)
    second = dict(zip(kept.tolist(), together.next(scores[kept]).tolist(), strict=True))
    for row in range(40):
        alone = Draws([row], how, torch.device("cpu"))
        assert alone.next(scores[row : row + 1]).item() == first[row]
        assert alone.next(scores[row : row + 1]).item() == second.get(row, first[row]) or row not in second


def test_prompts_about_one_picture_are_read_behind_it_and_the_picture_once(folder, model, images):
    """Rows of a picture share what lies before their own words, whichever families can be read in two parts."""
    requests = [Request(image, prompt) for image in images for prompt in PROMPTS]
    lengths = []
    hook = model._model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: lengths.append(tuple(output.shape[:2]))
    )
    texts = [text for text, _ in model.generate_scored(requests, Decoding(1))]
    hook.remove()
    rows = rows_of(model, images)
    shares = split_prompts(rows, model._model.config.image_token_id) is not None and model._splits
    widest = max(len(row.encoded.tokens) for row in rows)
    assert (
        lengths[0][0] == len(images) and len(lengths) == 2 and sum(width for _, width in lengths) <= widest + 9
    ) is shares
    assert texts == [text for request in requests for text, _ in model.generate_scored([request], Decoding(1))]
    assert shares is (can_share_prefixes(model._model) and not folder.endswith("PaliGemma"))


def test_another_prompt_on_an_image_is_what_the_processor_makes_of_it(folder, images):
    prompter = Prompter(open_processor(folder))
    head = Pictures(prompter)._head
    for image in map(read_image, images):
        first = prompter.encode(image, PROMPTS[0])
        for prompt in (*PROMPTS[1:], "42 é <image> ?", PROMPTS[0] + " ?"):
            row = with_other_prompt(first, prompter.tokens(PROMPTS[0]), prompter.tokens(prompt), head=head)
            whole = prompter.encode(image, prompt)
            if row is None:
                assert folder.endswith("PaliGemma"), "whose processor ends each prompt in its own way: asked again"
                continue
            assert row.per_token == whole.per_token
            assert all((row.image[key] == whole.image[key]).all() for key in whole.image)


def test_what_cannot_be_told_is_left_to_the_processor():
    image_comes_last = Encoded({"input_ids": [1, 5, 2, 2, 2, 3]}, {})
    assert with_other_prompt(image_comes_last, [1, 5, 2, 3], [1, 6, 2, 3], head=1) is None
    typed_text = Encoded({"input_ids": [1, 2, 2, 5], "token_type_ids": [0, 1, 1, 1]}, {})
    assert with_other_prompt(typed_text, [1, 2, 5], [1, 2, 6], head=2) is None


@pytest.fixture
def budget(model, monkeypatch):
    monkeypatch.setattr(_batches, "_learned", {})
    return Budget("hf:here", model._model)


def rows_of(model, images) -> list[BatchRow]:
    requests = [Request(image, prompt) for prompt in PROMPTS for image in images]
    return [
        BatchRow(place, request, model._prompter.encode(read_image(request.image), request.prompt))
        for place, request in enumerate(requests)
    ]


def test_batches_count_tokens_replies_and_patches(model, images, budget):
    (rows,) = windows(rows_of(model, images))
    assert sorted(row.place for row in rows) == list(range(9))
    widths = [len(row.encoded.tokens) + TOKENS for row in rows]
    assert widths == sorted(widths)
    seen = {row.request.image: patches(row.encoded, budget._patch) for row in rows}
    assert all(seen.values())
    for most in (1, sum(seen.values()), 3 * max(widths), 10**6):
        budget.room = Room(most, float("inf"), most)
        taken = budget.first(rows, TOKENS)
        batch = {row.request.image for row in rows[:taken]}
        assert taken == 1 or max(taken * widths[taken - 1], sum(seen[image] for image in batch)) <= most
        assert taken in range(1, 10)
    assert taken == 9


def test_prompts_that_many_draws_share_are_read_once(model, images, budget):
    row = rows_of(model, images)[0]
    length = len(row.encoded.tokens)
    budget.room = Room(float("inf"), length, float("inf"))
    assert budget.first([row] * 7, TOKENS) == 7
    budget.room = Room(4 * (length + TOKENS), float("inf"), float("inf"))
    assert budget.first([row] * 7, TOKENS) == 4


def test_batches_grow_again_once_many_have_fitted(model, images, budget):
    row = rows_of(model, images)[0]
    whole = 8 * (len(row.encoded.tokens) + TOKENS)
    budget.room = Room(whole, float("inf"), float("inf"))
    assert budget.first([row] * 20, TOKENS) == 8
    budget.halve([row] * 8, TOKENS)
    assert budget.first([row] * 20, TOKENS) == 4
    for _ in range(_batches._BATCHES_UNTIL_LARGER):
        budget.fitted()
    assert budget.first([row] * 20, TOKENS) == 8


def test_many_large_images_are_not_held_at_once(model, images, monkeypatch):
    rows = rows_of(model, images)
    monkeypatch.setitem(_batches._WINDOW_BYTES, "cpu", 1)
    assert [[row.place for row in window] for window in windows(rows)] == [[place] for place in range(9)]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_said_as_such_and_no_reply(tmp_path, number, temperature):
    model = hf.load(str(tiny.llava(tmp_path / "model", dtype=torch.float16)))
    requests = [Request(image, "what", seed) for seed, image in enumerate(tiny.drawn(tmp_path / "images", 3))]
    assert len(model.generate(requests, Decoding(4, temperature))) == 3
    weights = model._model.get_output_embeddings().weight
    weights.data[5] = number
    for ask in (
        lambda: model.generate(requests, Decoding(4, temperature)),
        lambda: model.observe([(request, "red") for request in requests]),
    ):
        with pytest.raises(WorkFailed, match=r"hf:.* computes no numbers in float32(.|\n)*not finite") as failed:
            ask()
        assert str(tmp_path / "images") in str(failed.value)


def test_a_reply_that_has_ended_may_be_followed_by_anything(tmp_path, monkeypatch):
    """Rows of a cache that cannot be cut go on, beyond what the model has positions for."""
    model = hf.load(str(tiny.llava(tmp_path / "model")))
    (image,) = tiny.drawn(tmp_path / "images", 1)
    head = model._model.get_output_embeddings()
    calls = []

    def after_the_end(_module, _inputs, logits):
        calls.append(len(logits))
        written = torch.full_like(logits, -10.0)
        written[0, :, model._stop[0] if len(calls) == 1 else 7] = torch.nan if len(calls) > 1 else 10.0
        written[1, :, 8] = 10.0
        return written

    monkeypatch.setattr("parityalign.models.backends._decoding.can_choose_rows", lambda model: False)
    monkeypatch.setattr(model, "_shares", False)
    head.register_forward_hook(after_the_end)
    replies = model.generate([Request(image, "what"), Request(image, "shape ?")], Decoding(3))
    assert "" in replies and calls == [2, 2, 2]
