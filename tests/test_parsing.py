"""The teacher's replies are read in every form that models use, or refused with a reason."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parityalign.core.records import Pair
from parityalign.stages.parsing import NoPair, ParsedPair, normalise_answer, read_pair

TOKENS = frozenset({"<image>", "<|im_end|>"})
FENCED = '```json\n{"question": "What is sold?", "answer": "tea"}\n```'


@pytest.mark.parametrize(
    "reply",
    [
        "Question: What is sold? Answer: tea",
        "question: What is sold? answer: tea.",
        "QUESTION:What is sold?\nANSWER:tea",
        "Question: What is sold?\n\nAnswer:\n\n  tea\n",
        "**Question:** What is sold?\n**Answer:** **tea**",
        "**Question**: What is sold?\n**Answer**: tea",
        "*Question:* What is sold? *Answer:* tea",
        "1. Question: What is sold?\n2. Answer: tea",
        "1) Question: What is sold? Answer: tea 2) Question: How much? Answer: 5",
        "- Question 1: What is sold?\n- Answer 1: tea\n- Question 2: How much?\n- Answer 2: 5",
        'Sure! Here it is.\nQuestion: "What is sold?"\nAnswer: "tea."',
        "Question: <What is sold?> Answer: <tea>",
        "Question: What\nis   sold?\nAnswer: `tea`\nThe sign in the window says so.",
        "Question： What is sold? Answer： tea",
        '{"question": "What is sold?", "answer": "tea"}',
        'Here: {"Question": "What is sold?", "ANSWER": "tea.", "why": null} Done.',
        '[{"question": "What is sold?", "answer": "tea"}, {"question": "x?", "answer": "y"}]',
        FENCED,
    ],
)
def test_every_usual_form_gives_the_same_pair(reply):
    assert read_pair(reply, TOKENS) == ParsedPair("What is sold?", "tea")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("A shop that sells tea.", "no_question"),
        ("Answer: tea", "no_question"),
        ("Question: Answer: tea", "no_question"),
        ("Question: ?? Answer: tea", "no_question"),
        ("Question: <your question> Answer: <your answer>", "no_question"),
        ("Question: What is sold?", "no_answer"),
        ("Question: What is sold? Answer:", "no_answer"),
        ("Question: What is sold? Answer: ...", "no_answer"),
        ('Question: What is sold? Answer: ""', "no_answer"),
        ("Question: What is sold? Answer: <your answer>", "no_answer"),
        ('{"question": "What is sold?"}', "no_answer"),
        ('{"question": "What is sold?", "answer": null}', "no_answer"),
        ('{"answer": "tea"}', "no_question"),
        ("Question: What is in <image>? Answer: tea", "special_token"),
        ("Question: What is sold? Answer: tea<|im_end|>", "special_token"),
        ("Question: What is sold? Answer: " + "tea" * 34, "too_long"),
        ("Question: What is sold? Answer: " + "a " * 13, "too_long"),
        (f"Question: What is {'very ' * 60}old? Answer: tea", "too_long"),
        ("Question: What colour is the red car? Answer: Red", "answer_in_question"),
        ("Question: In 1995, which year was it? Answer: 1995.", "answer_in_question"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(reply, reason):
    assert read_pair(reply, TOKENS) == reason


@pytest.mark.parametrize(
    "reply",
    [
        "Question: Is the redder car red or blue? Answer: red",
        "Question: Is there no sign? Answer: no",
        "Question: Is yes written there? Answer: Yes",
        "Question: Which letter follows a b? Answer: b",
        "Question: Which year follows 19950? Answer: 1995",
        "Question: Who scored? Answer: red",
    ],
)
def test_an_answer_that_the_question_has_to_name_is_kept(reply):
    assert isinstance(read_pair(reply), ParsedPair)


def test_without_special_tokens_none_are_looked_for():
    assert read_pair("Question: What is <image>? Answer: tea") == ParsedPair("What is <image>?", "tea")


@pytest.mark.parametrize("number", ["1.50", "12345678901234567890", "1e3", "-7"])
def test_a_json_number_keeps_its_spelling(number):
    assert read_pair(f'{{"question": "How much?", "answer": {number}}}') == ParsedPair("How much?", number)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("tea.", "tea"),
        ("tea...", "tea"),
        (" Tea .", "Tea"),
        ("U.S.", "U.S."),
        ("in the U.S.A.", "in the U.S.A."),
        ("5 p.m.", "5 p.m."),
        ("3.5.", "3.5"),
        ('"tea."', "tea"),
        ("“tea”.", "tea"),
        ("**tea**", "tea"),
        ("the boys'", "the boys'"),
        ("rock 'n' roll", "rock 'n' roll"),
        ("two\nlines", "two lines"),
        (".", ""),
        ('""', ""),
        ("", ""),
    ],
)
def test_an_answer_loses_its_wrapping_and_nothing_else(text, left):
    assert normalise_answer(text) == left


WORD = st.from_regex(r"[a-zA-Z0-9]{2,8}", fullmatch=True)


@given(st.lists(WORD, min_size=1, max_size=8), st.lists(WORD, min_size=1, max_size=3), st.booleans())
def test_a_pair_comes_back_from_the_form_and_from_json(question_words, answer_words, as_json):
    # Capitals mark the answer's words, so that the question cannot hold them.
    question = f"What {' '.join(question_words).lower()}?"
    answer = " ".join(f"Q{word}" for word in answer_words)
    form = f"Question: {question} Answer: {answer}"
    reply = json.dumps({"question": question, "answer": answer}) if as_json else form
    if f" {answer.casefold()}" in question or " or " in question:
        return
    assert read_pair(reply) == ParsedPair(question, answer)


PIECES = [
    "Question:",
    "Answer:",
    "**",
    '"',
    "{",
    "}",
    '{"question":',
    '"answer":',
    "```",
    "\n",
    "1.",
    "[",
    "\ud800",
    "\\ud800",
]


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=12).map("".join))
def test_no_text_makes_the_reader_raise_and_every_pair_fits_into_a_record(reply):
    parsed = read_pair(reply, TOKENS)
    if isinstance(parsed, NoPair):
        return
    pair = Pair(
        pair_id="p",
        image_id="i",
        image="a.png",
        task="textvqa",
        question=parsed.question,
        answer=parsed.answer,
        teacher="t",
    )
    assert Pair.model_validate_json(pair.model_dump_json()) == pair
    assert parsed.answer and "\n" not in parsed.question + parsed.answer


def test_nesting_beyond_all_measure_does_not_raise():
    assert read_pair('{"a":' * 100_000) == NoPair.NO_QUESTION


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing_more(text):
    once = normalise_answer(text)
    assert normalise_answer(once) == once
