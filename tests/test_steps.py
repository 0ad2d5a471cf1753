"""Asking a model: only what its answer store lacks, and in batches of which it hears beforehand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makers import kept
from parityalign.core.interfaces import Decoding
from parityalign.core.records import content_id
from parityalign.engines import AnswerStore, Asked, cached
from parityalign.engines.asking import answer_key
from parityalign.models.backends.fake import FakeModel


class Looker:
    """Repeats prompts, and notes what it was told and asked in which order."""

    name, special_tokens = "looker", frozenset({"<image>"})

    def __init__(self):
        self.heard = []

    def expect(self, requests):
        self.heard.append(("expect", [request.prompt for request in requests]))

    def generate(self, requests, decoding):
        self.heard.append(("generate", [request.prompt for request in requests]))
        return [request.prompt for request in requests]


def questions(numbers, image="i"):
    return [Asked(str(number), "image.png", f"prompt {number}", "", image) for number in numbers]


def ask(model, asked, batch_size=2, **options):
    told = []
    step = lambda done, total: told.append((done, total))  # noqa: E731
    answers = model.answer(asked, decoding=Decoding(4, **options), batch_size=batch_size, on_progress=step)
    return answers, told


def test_a_model_that_looks_ahead_hears_of_the_next_batch_first():
    model = Looker()
    ask(cached(model), questions(range(5)))
    prompts = [f"prompt {number}" for number in range(5)]
    assert model.heard == [
        ("expect", prompts[2:4]),
        ("generate", prompts[:2]),
        ("expect", prompts[4:]),
        ("generate", prompts[2:4]),
        ("generate", prompts[4:]),
    ]


def echo(name="echo"):
    return FakeModel(lambda request, decoding: f"{request.prompt} {request.seed} {decoding}", name=name)


def test_answers_come_in_the_order_of_the_questions_and_progress_counts_what_was_kept(tmp_path):
    ask(kept(tmp_path, echo()), questions([1, 3]))
    model = echo()
    answers, told = ask(kept(tmp_path, model), questions(range(4)))
    assert list(answers) == ["0", "1", "2", "3"]
    assert [request.prompt for request in model.asked] == ["prompt 0", "prompt 2"]
    assert told == [(2, 4), (4, 4)]


@settings(max_examples=50)
@given(first=st.sets(st.integers(0, 9)), then=st.sets(st.integers(0, 9)), size=st.integers(1, 4))
def test_nothing_is_asked_twice_and_the_answers_are_those_of_asking_everything(first, then, size):
    store, model = AnswerStore(), echo()
    for numbers in (first, then):
        answers, told = ask(cached(model, store), questions(sorted(numbers)), batch_size=size)
        assert answers == ask(cached(echo()), questions(sorted(numbers)))[0]
        assert not numbers or told[-1] == (len(numbers), len(numbers))
    assert len(model.asked) == len(first | then)


@pytest.mark.parametrize(
    "other",
    [
        {"image_id": "other"},
        {"prompt": "other"},
        {"seed": 5},
    ],
)
def test_another_picture_prompt_or_draw_is_another_question(tmp_path, other):
    model = echo()
    (asked,) = questions([1])
    for each in (asked, asked._replace(**other), asked._replace(item_id="2", image="moved/elsewhere.png")):
        ask(kept(tmp_path, model), [each], temperature=1.0)
    assert len(model.asked) == 2


def test_a_narrower_draw_is_another_draw_and_the_greedy_answer_is_always_the_same(tmp_path):
    model = echo()
    (asked,) = questions([1])
    for narrowed in ({}, {"top_p": 0.9}, {"top_k": 40}, {"top_p": 0.9, "top_k": 40}) * 2:
        ask(kept(tmp_path, model), [asked], temperature=1.0, **narrowed)
    assert len(model.asked) == 4
    for narrowed in ({}, {"top_p": 0.9}, {"top_k": 40}):
        ask(kept(tmp_path, model), [asked], **narrowed)
    assert len(model.asked) == 5


@pytest.mark.parametrize(
    ("decoding", "drawn"),
    [(Decoding(4), "greedy"), (Decoding(4, 1.0), "1.0 3"), (Decoding(4, 1.0, pair=True), "1.0 3")],
)
def test_answers_of_runs_before_there_was_anything_to_narrow_stay_valid(decoding, drawn):
    asked = Asked("1", "", "what", "", seed=3)
    assert answer_key("m", asked, decoding) == content_id("m", "", "what", drawn, "4")


def test_another_decoding_or_model_is_asked_again_and_a_seed_without_draws_is_not(tmp_path):
    model = echo()
    (asked,) = questions([1])
    ask(kept(tmp_path, model), [asked])
    ask(kept(tmp_path, model), [asked._replace(seed=7)])
    assert len(model.asked) == 1
    kept(tmp_path, model).answer([asked], decoding=Decoding(5), batch_size=1, on_progress=lambda *_: None)
    ask(kept(tmp_path, other := echo("other")), [asked])
    assert (len(model.asked), len(other.asked)) == (2, 1)


def test_questions_that_are_the_same_are_asked_once_and_all_answered():
    model = echo()
    twice = [each._replace(item_id=f"{each.item_id} {again}") for again in "ab" for each in questions([1])]
    answers, told = ask(cached(model), twice)
    assert len(model.asked) == 1 and len(answers) == 2 and told == [(0, 2), (2, 2)]


def test_a_text_with_a_special_token_reaches_no_model_and_needs_none_once_the_model_is_known(tmp_path):
    odd = [Asked("a", "image.png", "what is <image>?", "what is <image>?", "i")]
    model = Looker()
    ask(kept(tmp_path, model), questions([1]))
    answers, _ = ask(kept(tmp_path, model), odd)
    assert answers["a"].not_asked == "special_token" and len(model.heard) == 1


def test_a_question_that_is_given_twice_is_a_bug():
    with pytest.raises(ValueError, match="repeat the id"):
        ask(cached(echo()), questions([1, 1]))


def test_half_a_character_is_kept_as_a_question_mark(tmp_path):
    answers, _ = ask(kept(tmp_path, FakeModel(lambda *_: "a \ud800")), questions([1]))
    assert answers["1"].text == "a ?"


def test_a_picture_is_known_by_its_content_wherever_it_lies(tmp_path):
    model = echo()
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"the same")
        ask(kept(tmp_path, model), [Asked(name, str(tmp_path / name), "p", "")])
    (tmp_path / "a.png").write_bytes(b"another")
    ask(kept(tmp_path, model), [Asked("a.png", str(tmp_path / "a.png"), "p", "")])
    assert len(model.asked) == 2
