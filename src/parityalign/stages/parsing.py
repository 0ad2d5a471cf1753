"""Parses the teacher's replies: a question and an answer from free text, or the reason why there is none.

    read_pair("**Question:** What is sold?\n**Answer:** Tea.")  ->  ParsedPair("What is sold?", "Tea")

A reply that cannot be parsed is a normal, counted outcome: no text raises an exception.
"""

import json
import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import NamedTuple

from parityalign.engines import holds_special_token

MAX_QUESTION_CHARACTERS = 300
MAX_ANSWER_CHARACTERS = 100
MAX_RATIONALE_CHARACTERS = 600
MAX_ANSWER_WORDS = 12


class ParsedPair(NamedTuple):
    """A question and an answer parsed from a reply."""

    question: str
    """On one line, with its question mark."""
    answer: str
    """As `normalise_answer` leaves it; never empty."""


class NoPair(StrEnum):
    """Why a reply does not hold a usable pair."""

    SPECIAL_TOKEN = "special_token"
    """It holds a special token, such as an image placeholder."""
    EMPTY = "empty"
    NO_QUESTION = "no_question"
    NO_ANSWER = "no_answer"
    TOO_LONG = "too_long"
    """Question or answer is longer than the limits of this module."""
    ANSWER_IN_QUESTION = "answer_in_question"
    """The question contains its answer."""


def read_pair(reply: str, special_tokens: Collection[str] = ()) -> ParsedPair | NoPair:
    """Parses the first question and answer of a reply.

    Understands `Question: ... Answer: ...` on one line or several, in any case, in bold, in a numbered list,
    and an object such as `{"question": ..., "answer": ...}`, also between code fences.

    Args:
        reply: The text as the model wrote it.
        special_tokens: Texts that must not reach a model's prompt.
    """
    if holds_special_token(reply, special_tokens):
        return NoPair.SPECIAL_TOKEN
    if not reply.strip():
        return NoPair.EMPTY
    question, answer = _from_json(reply) or _from_labels(reply)
    question, answer = _normalise_question(question), normalise_answer(answer)
    if not any(map(str.isalnum, question)) or question == _ECHOED_QUESTION:
        return NoPair.NO_QUESTION
    if not answer or answer == _ECHOED_ANSWER:
        return NoPair.NO_ANSWER
    if _too_long(question, answer):
        return NoPair.TOO_LONG
    if _gives_itself_away(question, answer):
        return NoPair.ANSWER_IN_QUESTION
    return ParsedPair(question, answer)


class RationaleReply(NamedTuple):
    """A rationale and the answer after it, parsed from a reply."""

    rationale: str
    """On one line; never empty."""
    answer: str
    """As `normalise_answer` leaves it; never empty."""


def read_rationale(reply: str, special_tokens: Collection[str] = ()) -> RationaleReply | None:
    """Parses `Explanation: ... Answer: ...`; the first label may be missing. None if the reply has another form.

    Args:
        reply: The text as the model wrote it.
        special_tokens: Texts that must not reach a model's prompt.
    """
    reply = _BOLD.sub("", _SURROGATE.sub("", reply))
    labels = list(_ANSWER_LABEL.finditer(reply))
    if not labels or holds_special_token(reply, special_tokens):
        return None
    answered = labels[-1]  # a rationale may contain the word "answer"
    rationale = _on_one_line(_RATIONALE_LABEL.sub("", reply[: answered.start()], count=1))
    answer = normalise_answer(_first_line(reply[answered.end() :]))
    fits = 0 < len(rationale) <= MAX_RATIONALE_CHARACTERS and answer
    return RationaleReply(rationale, answer) if fits else None


def without_tags(text: str) -> str:
    """The text with a space inside everything that looks like a tag, so that other tools read it as plain text."""
    return _TAG.sub(lambda found: f"{found[0]} ", text)


def normalise_answer(text: str) -> str:
    """A short answer on one line, without bold marks, surrounding quotes and the final full stop.

    The dots of an abbreviation such as `U.S.` stay. The result may be empty.
    """
    while True:
        stripped = _without_full_stop(_without_wrapping(_on_one_line(text)))
        if stripped == text:
            return text
        text = stripped


# The reply of a teacher that repeats the form instead of filling it in, without its angle brackets.
_ECHOED_QUESTION = "your question"
_ECHOED_ANSWER = "your answer"

# Tags that some processor or trainer reads as an image, a role or an end: <image>, <|im_end|>, [IMG], ...
_TAG = re.compile(r"<(?=[^<>\s]+>)|\[(?=/?(?:IMG|IMG_BREAK|IMG_END|INST)\])")
_BOLD = re.compile(r"\*\*|__")
_SURROGATE = re.compile("[\ud800-\udfff]")  # legal in JSON escapes, but in no file
_QUESTION_LABEL = re.compile(r"\bquestion(?: ?\d{1,3})? ?[:：]", re.IGNORECASE)
_RATIONALE_LABEL = re.compile(r"^\s*explanation ?[:：]", re.IGNORECASE)
_ANSWER_LABEL = re.compile(r"\banswer(?: ?\d{1,3})? ?[:：]", re.IGNORECASE)
_LIST_MARK_AT_END = re.compile(r"(?:^|\s)(?:\d{1,3}[.)]|[-*#•]+)$")
_DOTTED_ABBREVIATION = re.compile(r"(?:^|\W)[^\W\d_](?:\.[^\W\d_])+\.$")
_LONGEST_ABBREVIATION = 100
_WRAPPINGS = ('""', "''", "``", "“”", "„“", "‘’", "«»", "<>")

# Numbers keep their spelling: a float would lose the 0 of 1.50.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


def _from_json(reply: str) -> tuple[str, str] | None:
    """Question and answer of the reply's first JSON object, each empty if absent; None if there is no object."""
    start = reply.find("{")
    if start < 0:
        return None
    try:
        found, _ = _DECODER.raw_decode(reply, start)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    fields = {key.strip().lower(): value for key, value in found.items()}
    if not {"question", "answer"} & fields.keys():
        return None
    return _text_of(fields, "question"), _text_of(fields, "answer")


def _text_of(fields: Mapping[str, object], key: str) -> str:
    value = fields.get(key)
    return _SURROGATE.sub("", value) if isinstance(value, str) else ""


def _from_labels(reply: str) -> tuple[str, str]:
    """The texts after the first `Question:` and the first `Answer:` following it; empty if absent."""
    reply = _BOLD.sub("", _SURROGATE.sub("", reply))
    asked = _QUESTION_LABEL.search(reply)
    answered = _ANSWER_LABEL.search(reply, asked.end() if asked else 0)
    question = reply[asked.end() : answered.start() if answered else None] if asked else ""
    return question, _first_line(reply[answered.end() :]) if answered else ""


def _first_line(text: str) -> str:
    """The first non-empty line, up to the next question."""
    following = _QUESTION_LABEL.search(text)
    if following:
        text = _LIST_MARK_AT_END.sub("", text[: following.start()].rstrip())
    return next((line for line in text.splitlines() if line.strip()), "")


def _normalise_question(text: str) -> str:
    return _without_wrapping(_LIST_MARK_AT_END.sub("", _on_one_line(text)))


def _on_one_line(text: str) -> str:
    return " ".join(_BOLD.sub("", text).split()).strip("* ")


def _without_wrapping(text: str) -> str:
    """Strips pairs of marks that enclose the whole text, such as quotes; a lone apostrophe stays."""
    while len(text) >= 2 and text[0] + text[-1] in _WRAPPINGS:
        text = text[1:-1].strip()
    return text


def _without_full_stop(text: str) -> str:
    # The end is enough, and over a long text of dotted letters the search would take minutes.
    return text if _DOTTED_ABBREVIATION.search(text[-_LONGEST_ABBREVIATION:]) else text.rstrip(" .")


def _too_long(question: str, answer: str) -> bool:
    return (
        len(question) > MAX_QUESTION_CHARACTERS
        or len(answer) > MAX_ANSWER_CHARACTERS
        or len(answer.split()) > MAX_ANSWER_WORDS
    )


def _gives_itself_away(question: str, answer: str) -> bool:
    """Whether the question contains the answer as whole words.

    Exceptions: questions that offer alternatives with "or", the answers yes and no, and single characters.
    """
    question, answer = question.casefold(), answer.casefold()
    if len(answer) == 1 or answer in ("yes", "no") or " or " in question:
        return False
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", question) is not None
