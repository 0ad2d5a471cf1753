"""The teacher's replies: every text is a pair that fits into a record, or has a reason why it is none."""

from hypothesis import strategies as st

from fuzz_targets._drawn import broken, of_pieces
from parityalign.core import Pair
from parityalign.stages.parsing import (
    MAX_ANSWER_CHARACTERS,
    MAX_QUESTION_CHARACTERS,
    NoPair,
    normalise_answer,
    read_pair,
    read_rationale,
)

_TOKENS = frozenset({"<image>", "<|im_end|>"})
_GOOD = [
    "Question: What is sold?\nAnswer: tea",
    "**Question 1:** What is sold? **Answer 1:** tea. Explanation: the sign.",
    "### Question\nWhat is sold?\n### Answer\n1. tea",
    "1. What is sold?\n   - A: tea\n2. Q: How much?\n   - A: 5",
    'Here:\n```json\n{"questions": [{"question": "What is sold?", "answer": "tea",}]}\n```',
    "<think>Question: draft? Answer: no</think><answer>Question: What is sold? Answer: \\boxed{tea}</answer>",
    'Question: What is said? Answer: "Stop" and "Go"',
    "Explanation: the sign says so. Answer: <|begin_of_box|>tea<|end_of_box|>",
    "Question: Who is it? Answer: I'm sorry, I can't help with that.",
]
_PIECES = [
    *(
        "Question:",
        "question 2 :",
        "Question #3.",
        "### Question\n",
        "Q:",
        "Answer:",
        "answer 1 :",
        "A:",
        "Ans:",
        "\nA1. ",
    ),
    *(
        "<think>",
        "</think>",
        "[THINK]",
        "<answer>",
        "</answer>",
        "<question>",
        "<|begin_of_box|>",
        "<|im_end|>",
        "<image>",
    ),
    *(
        '{"question":',
        '"answer":',
        '"Question 1": "',
        "{",
        "}",
        "[",
        "]",
        ",",
        '"',
        "'",
        "“",
        "”",
        "\\u",
        "\\ud800",
        "\\",
    ),
    *(
        "\\boxed{",
        "$",
        "**",
        "__",
        "*",
        "-",
        "1.",
        "2)",
        "#",
        ".",
        "U.S.",
        "?",
        "\n",
        "\r",
        "\u2028",
        " ",
        "\0",
        "\ud800",
    ),
    *(
        "<your question>",
        "[your answer]",
        "Explanation:",
        "Note:",
        "sorry",
        "I can't",
        "not visible",
        "tea",
        "What is it?",
    ),
]

INPUTS = of_pieces(_PIECES) | broken(_GOOD, _PIECES) | st.text()


def check(reply: str) -> None:
    """Reads one as a pair, as a rationale and as an answer."""
    once = normalise_answer(reply)
    if normalise_answer(once) != once:
        raise AssertionError(f"normalised twice, {once!r} becomes {normalise_answer(once)!r}")
    read_rationale(reply, _TOKENS)
    parsed = read_pair(reply, _TOKENS)
    if isinstance(parsed, NoPair):
        return
    question, answer = parsed
    pair = Pair(pair_id="p", image_id="i", image="a.png", task="vqa", question=question, answer=answer, teacher="t")
    if Pair.model_validate_json(pair.model_dump_json()) != pair:
        raise AssertionError("the pair does not come back from its record")
    if len(question) > MAX_QUESTION_CHARACTERS or not 0 < len(answer) <= MAX_ANSWER_CHARACTERS:
        raise AssertionError("the pair is beyond the limits")
    if len(f"{question}{answer}".splitlines()) > 1 or any(token in f"{question}\n{answer}" for token in _TOKENS):
        raise AssertionError("the pair has a line break or a special token")
