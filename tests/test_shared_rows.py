"""Examples about one picture in one row: they cost what they cost apart, and none sees another."""

from dataclasses import replace
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from families import FAMILIES, write
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.models.backends._observing import Observing
from parityalign.models.encoding import stop_tokens
from parityalign.models.loading import open_model, open_processor
from parityalign.models.shared_rows import row_sharing
from parityalign.models.stacking import stack
from parityalign.training import sharing as sharing_module
from parityalign.training.bundles import Limits, cut
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.losses import _passes
from parityalign.training.losses._joining import Signals
from parityalign.training.sampling import PictureSampler
from parityalign.training.sharing import tried_sharing
from parityalign.training.student import add_lora
from parityalign.training.weighted_loss import WeightedLoss

QUESTIONS = ("what is the colour ?", "shape ?", "what is the shape of the red square")
ANSWERS = ("red", "a blue square", "green", "7 up", "42", "the answer")
NO_LIMIT = Limits(2**40, 2**40)
TOLD = {"0": ("why?", "Explanation: blue. Answer: red"), "4": ("why is it so?", "Explanation: a. Answer: 42")}


def examples_of(folder, objective=tiny.ANSWER):
    """Three questions about each of two pictures, in turn."""
    images = tiny.drawn(folder, 2, sizes=((150, 50), (40, 110)))
    return [
        Example(images[n % 2], QUESTIONS[n // 2], answer, str(n), *objective.rationale(str(n)))
        for n, answer in enumerate(ANSWERS)
    ]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return examples_of(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def some_rows(tmp_path_factory):
    images = tiny.drawn(tmp_path_factory.mktemp("some"), 4)
    batches = AnswerCollator(tiny.processor(), [1])
    asked = [Example(images[n % 4], "what is " + "the shape " * (n % 3), ANSWERS[n % 6], str(n)) for n in range(10)]
    return batches.rows(batches.begin(asked))


def folder_of(name, folder):
    if name.startswith("embedded"):
        return str(EMBEDDED_MODELS / name.split(":")[1])
    return str(write(folder, next(family for family in FAMILIES if family.name == name)))


@pytest.fixture(
    scope="module", params=["embedded:student", "embedded:teacher", "Qwen2-VL", "SmolVLM", "Idefics3", "LLaVA"]
)
def opened(request, tmp_path_factory):
    """A model's folder, and its batches of the answers alone."""
    folder = folder_of(request.param, tmp_path_factory.mktemp("model"))
    return folder, collator(folder)


def collator(folder, **options):
    processor = open_processor(folder)
    return AnswerCollator(processor, stop_tokens(processor.tokenizer, open_model(folder).generation_config), **options)


def batch_of(batches, examples, sharing):
    """One batch of the examples, those about one picture in one row if that is what is asked for."""
    rows = batches.rows(batches.begin(examples))
    parts = cut(rows, NO_LIMIT, patch=16, prefix=sharing.prefix if sharing else None)
    return batches.batch([bundle for part in parts for bundle in part.bundles], sharing)


def learnt(folder, batches, examples, objective, *, shared, model=None):
    """The loss and the gradients of the examples."""
    model = model or open_model(folder)
    sharing = row_sharing(model) if shared else None
    model.zero_grad()
    with objective.recording_attention(model):
        batch = batch_of(batches, examples, sharing)
        loss = objective(model, batch)
        loss.backward()
    assert len(batch["input_ids"]) == (2 if shared else len(examples))
    return float(loss), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


def same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in one[1].values())
    for name, gradient in one[1].items():
        torch.testing.assert_close(other[1][name], gradient, rtol=1e-3, atol=3e-5 * largest, msg=name)


def test_examples_that_share_a_row_have_the_loss_and_gradients_of_examples_apart(opened, examples):
    folder, batches = opened
    one, other = (learnt(folder, batches, examples, tiny.ANSWER, shared=shared) for shared in (False, True))
    same(one, other)
    assert tried_sharing(open_model(folder), batches, examples)


def surprises(model, batch):
    """-log p of each labelled token, example by example."""
    passes = _passes.Passes(model, batch)
    with torch.no_grad():
        each = passes.each_token(
            lambda logits, place: -logits.log_softmax(-1).gather(1, passes.labels[place, None])[:, 0]
        )
    return each.split(passes.lengths.tolist())


def test_an_answer_is_as_likely_whatever_is_asked_beside_it(opened, examples):
    folder, batches = opened
    model = open_model(folder)
    about_one = examples[::2]
    before = surprises(model, batch_of(batches, about_one, row_sharing(model)))
    for changed in range(3):
        other = [
            replace(each, prompt="is it green ?", answer="square") if n == changed else each
            for n, each in enumerate(about_one)
        ]
        after = surprises(model, batch_of(batches, other, row_sharing(model)))
        for n in {0, 1, 2} - {changed}:
            torch.testing.assert_close(after[n], before[n], atol=2e-5, rtol=1e-4)
        assert (after[changed].shape, after[changed].tolist()) != (before[changed].shape, before[changed].tolist())


@pytest.mark.parametrize("name", ["PaliGemma", "Gemma 3"])
def test_where_types_tell_which_tokens_see_each_other_each_example_has_its_row(name, examples, tmp_path):
    folder = folder_of(name, tmp_path / "model")
    batches = collator(folder)
    assert tried_sharing(open_model(folder), batches, examples) is None


def deaf(forward, *, attention_mask, position_ids, **rest):
    """Takes a mask and sees everything before a token all the same."""
    return forward(position_ids=position_ids, **rest)


def choosy(forward, *, attention_mask, position_ids=None, **rest):
    """Raises what families raise of a mask that they do not know."""
    if attention_mask.ndim != 2:
        raise RuntimeError("no such mask")
    return forward(attention_mask=attention_mask, position_ids=position_ids, **rest)


def counting(forward, *, attention_mask, position_ids=None, **rest):
    """Counts positions itself."""
    return forward(attention_mask=attention_mask, **rest)


@pytest.mark.parametrize("odd", [deaf, choosy, counting])
def test_a_model_that_is_not_as_it_looks_is_found_out(odd, examples, tmp_path, monkeypatch):
    folder = str(tiny.llava(tmp_path / "model"))
    model, batches = open_model(folder), collator(folder)
    assert tried_sharing(model, batches, examples)
    usual = model.forward

    def forward(*, attention_mask=None, position_ids=None, **rest):
        return odd(usual, attention_mask=attention_mask, position_ids=position_ids, **rest)

    monkeypatch.setattr(model, "forward", forward)
    assert row_sharing(model)
    assert tried_sharing(model, batches, examples) is None


def test_where_no_picture_has_several_examples_nothing_is_tried(examples, tmp_path, monkeypatch):
    folder = str(tiny.llava(tmp_path / "model"))
    model, batches = open_model(folder), collator(folder)
    monkeypatch.setattr(sharing_module, "_says_the_same", lambda *_: pytest.fail("tried"))
    assert tried_sharing(model, batches, examples[:2]) is None


@pytest.mark.parametrize("text", [{"attn_implementation": "flash_attention_2"}, {"layer_types": ["sliding_attention"]}])
def test_layers_that_do_not_keep_or_see_all_tokens_are_told_by_the_configuration(text, tmp_path, some_rows):
    model = open_model(str(tiny.llava(tmp_path / "model")))
    config = model.config.get_text_config()
    assert row_sharing(model)
    if "layer_types" in text:
        config.layer_types, config.sliding_window = text["layer_types"] * 2, 8
        assert row_sharing(model).prefix([row.answer for row in some_rows[::4]]) == 0
        config.sliding_window = 80
        assert row_sharing(model).prefix([row.answer for row in some_rows[::4]]) > 16
        config.layer_types = ["linear_attention"] * 2
    else:
        config._attn_implementation_internal = text["attn_implementation"]
    assert row_sharing(model) is None


def test_with_an_adapter_or_masks_that_are_added_rows_are_shared_as_well(examples, tmp_path):
    folder = str(tiny.fast_vlm(tmp_path / "model"))
    batches = collator(folder)
    for attention in ("sdpa", "eager"):
        model = open_model(folder)
        model.set_attn_implementation({"text_config": attention})
        torch.manual_seed(0)
        adapted = add_lora(model, 2)
        one, other = (
            learnt(folder, batches, examples, tiny.ANSWER, shared=shared, model=adapted) for shared in (False, True)
        )
        same(one, other)


ALL = {"answer": 1.0, "confidence": 0.5, "attention": 0.25, "reasoning": 0.5, "consistency": 0.5, "coherence": 0.5}


def all_terms(folder, batches, examples):
    """Every term, with signals that the student itself shows of other pictures."""
    rows = batches.rows(batches.begin(examples[::-1]))
    told = [row.answer for row in rows]
    seen = Observing(open_model(folder), open_processor(folder)).observe(
        told, stack([row.encoded for row in told], pad_token=0, side="right")
    )
    observations = {str(number): each for number, each in enumerate(seen) if number != 3}
    signals = Signals(observations, {"1": 2.0, "4": 0.5}, TOLD, "", lambda: open_processor(folder))
    return WeightedLoss({name: (weight, weight) for name, weight in ALL.items()}, signals=signals)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "logits"), [("embedded:student", 2**25), ("Qwen2-VL", 2**25), ("Qwen2-VL", 300), ("SmolVLM", 300)]
)
def test_every_term_is_what_it_is_apart(name, logits, tmp_path, monkeypatch):
    monkeypatch.setattr(_passes, "MOST_LOGITS", logits)
    folder = folder_of(name, tmp_path / "model")
    plain = examples_of(tmp_path / "pictures")
    objective = all_terms(folder, collator(folder), plain)
    told = examples_of(tmp_path / "pictures", objective)
    batches = collator(folder, join=objective.joiner(open_processor(folder)), views=True)
    told = [
        replace(each, **dict(zip(("rationale_prompt", "rationale"), TOLD.get(each.pair_id, ("", "")), strict=True)))
        for each in plain
    ]
    one, other = (learnt(folder, batches, told, objective, shared=shared) for shared in (False, True))
    same(one, other)


# The order of examples


@given(st.lists(st.sampled_from("abcdef"), min_size=1), st.integers(0, 2**32 - 1))
def test_pictures_come_in_another_order_in_each_epoch_with_their_examples_together(images, seed):
    sampler = PictureSampler([Example(image, "what", "red") for image in images], seed)
    orders = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        orders.append([*sampler])
        assert orders[-1] == [*sampler] and len(sampler) == len(orders[-1])
        assert sorted(orders[-1]) == [*range(len(images))]
        assert len([*groupby(images[place] for place in orders[-1])]) == len({*images})
    assert len({*images}) < 4 or len({*map(tuple, orders)}) > 1


# A step's rows, cut by tokens


def only_some(rows):
    """Rows that may share five tokens, unless they are many."""
    return 5 if len(rows) < 3 else 0


@given(st.data(), st.integers(1, 400), st.integers(1, 12), st.booleans())
def test_every_row_is_in_one_micro_batch_and_only_a_single_example_is_larger_than_the_budget(
    some_rows, data, most, pairs, shared
):
    rows = data.draw(st.lists(st.sampled_from(some_rows), min_size=1, max_size=12, unique_by=lambda row: row.pair_id))
    parts = cut(rows, Limits(most, pairs), patch=tiny.PATCH, prefix=only_some if shared else None)
    assert sorted(row.pair_id for part in parts for row in part.rows) == sorted(row.pair_id for row in rows)
    for part in parts:
        longest = max(bundle.tokens for bundle in part.bundles)
        assert part.size == longest * len(part.bundles) + sum(bundle.patches for bundle in part.bundles)
        assert len(part.rows) == 1 or (part.size <= most and len(part.rows) <= pairs)
        assert all(len({row.image for row in bundle.rows}) == 1 for bundle in part.bundles)
        assert len({bool(bundle.prefix) for bundle in part.bundles}) == 1
        assert all(bundle.prefix or len(bundle.rows) == 1 for bundle in part.bundles)


def test_a_large_picture_goes_alone_and_leaves_the_small_ones_together(some_rows):
    large = some_rows[0].answer.encoded
    tokens = {key: values[:1] * 400 + values for key, values in large.per_token.items()}
    wide = replace(some_rows[0].answer, encoded=replace(large, per_token=tokens))
    parts = cut([some_rows[0]._replace(answer=wide), *some_rows[1:]], Limits(2000, 64), patch=tiny.PATCH)
    assert [len(part.rows) for part in parts] == [1, 9]
    halved = cut([some_rows[0]._replace(answer=wide), *some_rows[1:]], Limits(parts[0].size // 2, 64), patch=tiny.PATCH)
    assert [len(part.rows) for part in halved][0] == 1
