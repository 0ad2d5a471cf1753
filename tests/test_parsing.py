"""The teacher's replies are read in every form that models use, or refused with a reason."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parityalign.core.records import Pair
from parityalign.stages.parsing import (
    MAX_REPLY_CHARACTERS,
    NoPair,
    ParsedPair,
    RationaleReply,
    checked_pair,
    normalise_answer,
    read_pair,
    read_rationale,
)

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
        "Question #1: What is sold?\nAnswer #1: tea",
        "Question No. 1: What is sold? Answer: tea",
        "Question 1. What is sold?\nAnswer 1. tea\nQuestion 2. How much?\nAnswer 2. 5",
        "Question 1\nWhat is sold?\n\nAnswer 1\ntea",
        "### Question\nWhat is sold?\n\n### Answer\ntea\n",
        "## Question 1:\n> What is sold?\n## Answer:\n1. tea\n2. coffee",
        "**Question**\nWhat is sold?\n**Answer**\n- tea",
        "Q: What is sold?\nA: tea\n\nQ: How much?\nA: 5",
        "Q: What is sold? A: tea",
        "**Q1:** What is sold?\n**A1:** tea",
        "Q1. What is sold?\nA1. tea",
        "1. Q: What is sold?\n   A: tea\n2. Q: How much?\n   A: 5",
        "Question: What is sold?\nAns: tea",
        "Question: What is sold?\nCorrect answer: tea",
        "Question 1: What is sold?\nQuestion 2: How much?\nAnswer 1: tea\nAnswer 2: 5",
        "What is sold?\nAnswer: tea",
        "Sure!\n1. What is sold?\n   - **Answer:** tea\n2. How much?\n   - **Answer:** 5",
        "Here is the question: could be about tea. No.\nQuestion: What is sold?\nAnswer: tea",
        "Reply in this form only. Question: <your question> Answer: <your answer>\nQuestion: What is sold? Answer: tea",
        "<question>What is sold?</question>\n<answer>tea</answer>",
        "Question: What is sold? Answer: <answer>tea</answer> as the sign says",
        "<answer>Question: What is sold? Answer: tea</answer>",
        "Question: [What is sold?] Answer: [tea]",
        "Question: What is sold? (Answer: tea) It is a shop.",
        "Question: What is sold? | Answer: tea",
        "Question: What is sold?; Answer: tea",
        "Question: {What is sold?} Answer: {tea}",
        '{"questions": [{"question": "What is sold?", "answer": "tea"}]}',
        '{"image": "a shop", "qa_pairs": [{"q": "What is sold?", "a": "tea"}, {"q": "x?", "a": "y"}]}',
        '{"Question 1": "What is sold?", "Answer 1": "tea", "Question 2": "How much?", "Answer 2": "5"}',
        '{"Question 1": {"question": "What is sold?", "answer": "tea"}, "Question 2": {"question": "x?"}}',
        '{"Question 1": "What is sold?", "Answer": "tea"}',
        '{"question": "What is sold?", "answer": "tea",}',
        '{"questions": [{"question": "What is sold?", "answer": "tea",},],}',
        "{'question': 'What is sold?', 'answer': 'tea'}",
        '{the shop} {"question": "What is sold?", "answer": "tea"}',
        "Question: What is sold? Answer: tea. Explanation: the sign says so.",
        "Question: What is sold?\nAnswer: tea (Reason: it is on the sign)",
        "Question: What is sold? Answer: tea - Note: there is coffee too.",
        r"Question: What is sold? Answer: \boxed{tea}",
        r"Question: What is sold? Answer: The sign says $\boxed{\text{tea}}$.",
        "Question: What is sold? Answer: <|begin_of_box|>tea<|end_of_box|>",
        "<|begin_of_box|>Question: What is sold? Answer: tea<|end_of_box|>",
        "<think>Question: What colour? Answer: grey. Another one.</think>\n\nQuestion: What is sold? Answer: tea",
        "Question: What colour? Answer: grey. Another.\n</think>\nQuestion: What is sold? Answer: tea",
        "<think>After </think> I write Question: draft? Answer: no</think>Question: What is sold? Answer: tea",
        "<think>a</think><answer>Question: What is sold? Answer: tea</answer>",
        "Question: What is sold?<think>The sign.</think> Answer: tea <think>Right.</think>",
        "[THINK]Question: draft? Answer: no[/THINK]Question: What is sold? Answer: tea",
        "◁think▷Question: draft? Answer: no◁/think▷Question: What is sold? Answer: tea",
        "<|channel|>analysis<|message|>Question: draft? Answer: no<|end|><|start|>assistant"
        "<|channel|>final<|message|>Question: What is sold? Answer: tea",
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
        ("Question: [your question] Answer: [your answer]", "no_question"),
        ("Question: (your question)\nAnswer: (your answer)", "no_question"),
        ("Question: [Your question here] Answer: tea", "no_question"),
        ("Question: What is sold? Answer: [insert your answer]", "no_answer"),
        ('{"question": "[your question]", "answer": "[your answer]"}', "no_question"),
        ("Question: What is sold?\nQuestion: How much?\nAnswer: tea\nAnswer: 5", "no_answer"),
        ("The shop sells it.\nAnswer: tea", "no_question"),
        ("Take vitamin A: it is good. Answer: tea", "no_question"),
        ('{"question": {"text": "What is sold?"}}', "no_question"),
        ("<think>It sells tea.</think>", "empty"),
        ("<think>Question: What is sold? Answer: tea", "unfinished_thought"),
        ("Question: What is sold? Answer: tea <think> or", "unfinished_thought"),
        ("a </think> b <thinking> Question: What is sold? Answer: tea", "unfinished_thought"),
        ("I'm sorry, but I can't assist with that.", "refusal"),
        ("Question: Who is this? Answer: I'm sorry, I can't help with identifying people.", "refusal"),
        (
            "Question: Who is this? Answer: I’m sorry, but I am unable to say who is shown here, as it is private.",
            "refusal",
        ),
        ("Question: Who is this? Answer: I cannot identify people.", "refusal"),
        ("Question: Who is this? Answer: As an AI, I do not know persons.", "refusal"),
        ("Question: Unfortunately, I cannot write one. Answer: none", "refusal"),
        ('{"question": "Who is this?", "answer": "Sorry, I can\'t help with that."}', "refusal"),
        ("Question: What is sold? Answer: Not visible", "unanswerable"),
        ("Question: What is sold? Answer: It is not clearly visible in the image.", "unanswerable"),
        ("Question: What is sold? Answer: Cannot be determined from the image", "unanswerable"),
        ("Question: What is sold? Answer: The name of the shop cannot be read", "unanswerable"),
        ("Question: What is sold? Answer: unable to determine", "unanswerable"),
        ("Question: What is sold? Answer: too blurry to read", "unanswerable"),
        ("Question: What is sold? Answer: Unknown.", "unanswerable"),
        ("Question: What is sold? Answer: Unclear from this angle", "unanswerable"),
        ("Question: What is sold? Answer: N/A", "unanswerable"),
        ("Question: What is sold? Answer: not specified", "unanswerable"),
        ("Question: What is sold? Answer: No text is visible", "unanswerable"),
        ("Question: What is sold? Answer: I don't know", "unanswerable"),
        (
            "Question: What is sold? Answer: Not visible, since the sign of the shop is hidden by a very large tree",
            "unanswerable",
        ),
        ("Question: What is sold? Answer: tea<|eot_id|>", "special_token"),
        ("Question: What is sold? Answer: tea</s>", "special_token"),
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


@pytest.mark.parametrize(
    "answer",
    [
        "Sorry, we are closed",
        "I'm sorry",
        "Sorry, we can't take cards",
        "Unknown Pleasures",
        "no parking",
        "not far",
        "I can't get no satisfaction",
        "As an Aide",
        "None",
        "not a dog",
        "Reason: repairs",
        "$5",
        "your answers",
        "-7",
        "[EXIT] only",
    ],
)
def test_what_a_sign_may_say_is_an_answer(answer):
    assert read_pair(f"Question: What is written? Answer: {answer}") == ParsedPair("What is written?", answer)


@pytest.mark.parametrize(
    ("reply", "pair"),
    [
        ("Question: What is the answer: yes or no? Answer: yes", ("What is the answer: yes or no?", "yes")),
        ("Question: Which?\nA: tea\nB: milk\nAnswer: B", ("Which? A: tea B: milk", "B")),
        ("Question 1: Which?\nAnswer 1: tea\nQuestion 2: What? Answer 2: 5", ("Which?", "tea")),
        ('{"question": "What says the "EXIT" sign?", "answer": "stop"}', ('What says the "EXIT" sign?', "stop")),
        ('{"question": "Caf\\u00e9 or bar?", "answer": 1.50,}', ("Café or bar?", "1.50")),
        ('Question: What? Answer: "Stop" and "Go"', ("What?", '"Stop" and "Go"')),
    ],
)
def test_question_and_answer_that_belong_together_are_found(reply, pair):
    assert read_pair(reply) == ParsedPair(*pair)


def test_every_reason_is_documented():
    page = (Path(__file__).parent.parent / "docs/settings.md").read_text(encoding="utf-8")
    assert [reason.value for reason in NoPair if f"`{reason}`" not in page] == []


def test_a_reply_beyond_all_measure_is_not_read():
    form = "Question: What is sold? Answer: tea"
    assert read_pair(form.ljust(MAX_REPLY_CHARACTERS)) == ParsedPair("What is sold?", "tea")
    assert read_pair(form.ljust(MAX_REPLY_CHARACTERS + 1)) == NoPair.REPLY_TOO_LONG
    assert read_rationale(f"Because. {form}".ljust(MAX_REPLY_CHARACTERS + 1)) is None


@pytest.mark.long
@pytest.mark.parametrize(
    "piece",
    [
        '"', "'", "“", "<", "[", "{", '{"a":', '"question":', '"question": "', "question: ", "Answer: ", "Answer 1: ",
        "Q: ", "\n", " ", "- ", "-", "1. ", "*", "**", "__", "a.", "a. ", ".", "<think>", "</think>", "<answer>", "<b>",
        "<think></think>", "\\boxed{", "$", "\\", "#", "answer", "a", "sorry ", "not ", "the ", "reason: ", "\r", '".',
    ],
)  # fmt: skip
def test_reading_takes_a_time_that_grows_with_the_reply_only(piece):
    """Where it grew with the square, one of these would take hours."""
    many = piece * (100_000 // len(piece))
    for reply in (
        many,
        f"Question: What is sold? Answer: {many}",
        f"Question: {many}x? Answer: {many}x",
        f"{many}? Answer: a",
    ):
        read_pair(reply, TOKENS)
        read_rationale(reply, TOKENS)
        normalise_answer(reply)


@pytest.mark.parametrize(
    ("reply", "rationale"),
    [
        ("<think>Answer: 5</think>Explanation: the sign. Answer: tea", RationaleReply("the sign.", "tea")),
        ("Explanation: the sign. Answer: <|begin_of_box|>tea<|end_of_box|>", RationaleReply("the sign.", "tea")),
        ("<think>Explanation: the sign. Answer: tea", None),
    ],
)
def test_a_rationale_is_read_without_the_thoughts_before_it(reply, rationale):
    assert read_rationale(reply, TOKENS) == rationale


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
        ('""tea""', "tea"),
        ('"Stop" and "Go"', '"Stop" and "Go"'),
        ('"Stop!" and "Go!"', '"Stop!" and "Go!"'),
        ('"Stop","Go"', '"Stop","Go"'),
        ("'Stop' or 'Go'", "'Stop' or 'Go'"),
        ("“Stop” and “Go”", "“Stop” and “Go”"),
        ("„Halt“, „Los“", "„Halt“, „Los“"),
        ("«Stop» / «Go»", "«Stop» / «Go»"),
        ("[a] and [b]", "[a] and [b]"),
        ("<a> and <b>", "<a> and <b>"),
        ("'Wendy's'", "Wendy's"),
        ("‘Wendy’s’", "Wendy’s"),
        ("'rock 'n' roll'", "rock 'n' roll"),
        ('"the "old" inn"', 'the "old" inn'),
        ("<answer>tea</answer>", "tea"),
        ("<answer>tea", "tea"),
        ("tea.</answer>", "tea"),
        ("<b>tea</b>", "tea"),
        ("<b>tea</b> and <b>milk</b>", "<b>tea</b> and <b>milk</b>"),
        ("<|begin_of_box|>tea<|end_of_box|>.", "tea"),
        (r"\boxed{tea}", "tea"),
        (r"It is \boxed{\text{tea}}.", "tea"),
        (r"\boxed{1} or \boxed{2}", r"\boxed{1} or \boxed{2}"),
        (r"$62\%$", "62%"),
        (r"\(5\)", "5"),
        ("$5", "$5"),
        ("from $5 to $9", "from $5 to $9"),
        ("<think>milk?</think> tea", "tea"),
        ("milk? </think> tea", "tea"),
        ("<think>milk?", ""),
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
    "<think>",
    "</think>",
    "<answer>",
    "Q:",
    "### Answer",
    "\\boxed{",
]
FRAMES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "**",
    '"',
    "'",
    "“",
    "”",
    "[",
    "]",
    "<",
    ">",
    "\\boxed{",
    "{",
    "}",
    "$",
    ".",
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


@given(st.text(max_size=30) | st.lists(st.sampled_from(FRAMES) | st.text(max_size=4), max_size=8).map("".join))
def test_normalising_twice_changes_nothing_more(text):
    once = normalise_answer(text)
    assert normalise_answer(once) == once


# A question and an answer that came apart


@given(st.text(max_size=400), st.text(max_size=200))
def test_no_question_and_answer_of_a_file_raise_and_a_pair_comes_out_as_it_went_in_again(question, answer):
    found = checked_pair(question, answer)
    if isinstance(found, ParsedPair):
        assert found.question and found.answer
        assert checked_pair(*found) == found


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("What is sold?", " **Tea.** ", ParsedPair("What is sold?", "Tea")),
        ("What is sold?", "", NoPair.NO_ANSWER),
        ("", "tea", NoPair.NO_QUESTION),
        ("Is tea sold?", "tea", NoPair.ANSWER_IN_QUESTION),
        ("What is sold?", "Not visible", NoPair.UNANSWERABLE),
        ("What is <img> sold?", "tea", NoPair.SPECIAL_TOKEN),
        ("What is sold?", "tea</s>", NoPair.SPECIAL_TOKEN),
        ("What?" * 100, "tea", NoPair.TOO_LONG),
        ("What?" * 200_000, "tea", NoPair.TOO_LONG),
    ],
)
def test_pairs_that_came_apart_are_checked_by_the_rules_for_replies(question, answer, expected):
    assert checked_pair(question, answer, {"<img>"}) == expected
