"""Parses the teacher's replies: a question and an answer from free text, or the reason why there is none.

    read_pair("**Question:** What is sold?\n**Answer:** Tea.")  ->  ParsedPair("What is sold?", "Tea")

A reply that cannot be parsed is a normal, counted outcome: no text raises an exception.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

from parityalign.core import without_thoughts
from parityalign.engines import holds_special_token
from parityalign.stages._answer_text import normalise_answer as normalise_answer
from parityalign.stages._answer_text import (
    on_one_line,
    without_bold,
    without_box_tokens,
    without_wrapping,
)
from parityalign.stages._non_answers import cannot_tell, declines, is_echo
from parityalign.stages._reply_forms import LIST_MARK_AT_END, from_json, from_labels

MAX_REPLY_CHARACTERS = 500_000
"""A longer reply is not read: with thoughts and all, no model needs so many for a question."""
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

    REPLY_TOO_LONG = "reply_too_long"
    """It is longer than `MAX_REPLY_CHARACTERS` and was not read."""
    UNFINISHED_THOUGHT = "unfinished_thought"
    """The model was still thinking when it ended: its tokens were used up."""
    SPECIAL_TOKEN = "special_token"
    """It holds a special token, such as an image placeholder."""
    EMPTY = "empty"
    """There is nothing in it, or nothing but thoughts."""
    REFUSAL = "refusal"
    """The model declines to ask or to answer."""
    NO_QUESTION = "no_question"
    NO_ANSWER = "no_answer"
    UNANSWERABLE = "unanswerable"
    """The answer says that it is not visible or cannot be told."""
    TOO_LONG = "too_long"
    """Question or answer is longer than the limits of this module."""
    ANSWER_IN_QUESTION = "answer_in_question"
    """The question contains its answer."""


def read_pair(reply: str, special_tokens: Collection[str] = ()) -> ParsedPair | NoPair:
    """Parses the first question and answer of a reply, whatever the model thought before it.

    Understands `Question: ... Answer: ...` on one line or several, in any case, in bold, as headings or tags, in a
    numbered list, `Q: ... A: ...`, and an object such as `{"question": ..., "answer": ...}`, alone or in others, also
    between code fences.

    Args:
        reply: The text as the model wrote it.
        special_tokens: Texts that must not reach a model's prompt.
    """
    said = _said(reply, special_tokens)
    if isinstance(said, NoPair):
        return said
    question, answer = map(_without_surrogates, from_json(said) or from_labels(said))
    question, answer = _normalise_question(question), normalise_answer(answer)
    return _fault(question, answer, said) or ParsedPair(question, answer)


def checked_pair(question: str, answer: str, special_tokens: Collection[str] = ()) -> ParsedPair | NoPair:
    """A question and an answer that came apart, by the rules for those of a reply.

    Args:
        question: As it was given.
        answer: Likewise.
        special_tokens: Texts that must not reach a model's prompt.
    """
    said = _without_surrogates(f"{question}\n{answer}")
    if len(said) > MAX_REPLY_CHARACTERS:
        return NoPair.TOO_LONG
    if holds_special_token(said, special_tokens):
        return NoPair.SPECIAL_TOKEN
    asked, answered = _normalise_question(_without_surrogates(question)), normalise_answer(_without_surrogates(answer))
    return _fault(asked, answered, asked) or ParsedPair(asked, answered)


def fault_of_answer(answer: str) -> NoPair | None:
    """What keeps a person's answer from being trained on; what it says is theirs."""
    if not normalise_answer(answer):
        return NoPair.NO_ANSWER
    if _CONTROL_TOKEN.search(answer) or _SURROGATE.search(answer):
        return NoPair.SPECIAL_TOKEN
    return NoPair.TOO_LONG if _too_long("", answer) else None


def yes_or_no(reply: str) -> bool | None:
    """Whether a reply begins with yes or with no; None: with neither."""
    found = _YES_OR_NO.match(normalise_answer(reply))
    return None if found is None else found[1].lower() == "yes"


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
    said = _said(reply, special_tokens)
    if isinstance(said, NoPair):
        return None
    said = without_bold(said)
    labels = list(_ANSWER_LABEL.finditer(said))
    if not labels:
        return None
    answered = labels[-1]  # a rationale may contain the word "answer"
    rationale = on_one_line(_RATIONALE_LABEL.sub("", said[: answered.start()], count=1))
    own = _QUESTION_LABEL.split(said[answered.end() :], maxsplit=1)[0]
    answer = normalise_answer(next((line for line in own.splitlines() if line.strip()), ""))
    fits = 0 < len(rationale) <= MAX_RATIONALE_CHARACTERS and answer
    return RationaleReply(rationale, answer) if fits else None


def without_tags(text: str) -> str:
    """The text with a space inside everything that looks like a tag, so that other tools read it as plain text."""
    return _TAG.sub(lambda found: f"{found[0]} ", text)


# Tags that some processor or trainer reads as an image, a role or an end: <image>, <|im_end|>, [IMG], ...
_TAG = re.compile(r"<(?=[^<>\s]+>)|\[(?=/?(?:IMG|IMG_BREAK|IMG_END|INST)\])")
# What a server lets through of a vocabulary that is not known here. No student may be trained to write it; questions
# are looked through when a model is asked.
_CONTROL_TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>|</s>|<(?:bos|eos|pad|unk|end_of_turn|start_of_turn)>|\[/?INST\]")
_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")  # legal in JSON escapes, but in no file
_RATIONALE_LABEL = re.compile(r"^\s*explanation ?[:：]", re.IGNORECASE)
_QUESTION_LABEL = re.compile(r"\bquestion(?: ?\d{1,3})? ?[:：]", re.IGNORECASE)
_ANSWER_LABEL = re.compile(r"\banswer(?: ?\d{1,3})? ?[:：]", re.IGNORECASE)


def _said(reply: str, special_tokens: Collection[str]) -> str | NoPair:
    """What the model said when it had thought, or why that is not read."""
    if len(reply) > MAX_REPLY_CHARACTERS:
        return NoPair.REPLY_TOO_LONG
    spoken = without_thoughts(reply)
    if spoken is None:
        return NoPair.UNFINISHED_THOUGHT
    said = _without_surrogates(without_box_tokens(spoken))
    if holds_special_token(said, special_tokens):
        return NoPair.SPECIAL_TOKEN
    return said if said.strip() else NoPair.EMPTY


def _fault(question: str, answer: str, said: str) -> NoPair | None:
    """What keeps a question and an answer, parsed from what was said, from being a pair."""
    asks = any(map(str.isalnum, question)) and not is_echo(question, "question")
    if _CONTROL_TOKEN.search(answer):
        return NoPair.SPECIAL_TOKEN
    if declines(answer) or declines(question if asks else said):
        return NoPair.REFUSAL
    if not asks:
        return NoPair.NO_QUESTION
    if not answer or is_echo(answer, "answer"):
        return NoPair.NO_ANSWER
    if cannot_tell(answer):
        return NoPair.UNANSWERABLE
    if _too_long(question, answer):
        return NoPair.TOO_LONG
    return NoPair.ANSWER_IN_QUESTION if _gives_itself_away(question, answer) else None


def _without_surrogates(text: str) -> str:
    return _SURROGATE.sub("", text)


def _normalise_question(text: str) -> str:
    return without_wrapping(LIST_MARK_AT_END.sub("", on_one_line(text)).rstrip(" (|;,–—"))


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
