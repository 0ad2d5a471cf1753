"""The accuracy of RealWorldQA: a choice by its letter, anything else word for word."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from parityalign.core import Metric, Score
from parityalign.metrics._references import require_references

_LETTERS = ("A", "B", "C", "D")
_ENDS = (",", ".", "!", "?", ";", ":", "'", '"')
_PHRASES = (
    *("the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is"),
    *("best answer is", "the correct option is", "correct option is", "the best option is", "best option is"),
    *("the choice is", "choice is", "the correct choice is", "correct choice is", "i choose", "i select", "i pick"),
    *("my answer is", "my choice is", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
_BESIDE = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
"""Forms of a letter within a text, and how much each tells."""
_FIRST, _LAST, _SAID, _ANYWHERE = 10, 9, 7, 0


class _Found(NamedTuple):
    tells: int
    """How much the form tells that this is the answer."""
    place: int
    letter: str


def realworldqa_accuracy(prediction: str, references: Sequence[str]) -> Score:
    """1 if the prediction is the reference (EvolvingLMMs-Lab/lmms-eval 75571cf, `tasks/realworldqa/utils.py`).

    A reference of A to D wants its letter, found in the prediction in the forms of `tasks/_task_utils/mcq_extract.py`
    there: a letter at the beginning or the end that is no part of a word, one behind a phrase such as "the answer is",
    one in brackets or before a mark or a space, else any of the four capitals. The form that tells most counts, of
    several in one form the last. Any other reference is compared in lower case, without outer whitespace and, of the
    prediction, full stops at its end.

    Quirks that are kept: a choice's text is not read as its letter, so "Left" is wrong for "B" where B is left, but
    "Down" is a D; "A car" is an A.

    Raises:
        UserError: there is no reference.
    """
    require_references(prediction, references)
    letter, plain = _letter(prediction), prediction.lower().strip().rstrip(".")
    for reference in map(str.strip, references):
        if reference.upper() in _LETTERS:
            if letter == reference.upper():
                return Score(1.0, letter, f"the letter {letter}")
        elif plain == reference.lower():
            return Score(1.0, plain, f"equals {reference!r}")
    wants_letter = references[0].strip().upper() in _LETTERS
    return Score(0.0, letter if wants_letter else plain, f"is not {references[0]!r}")


def _letter(prediction: str) -> str:
    """The letter that a prediction chooses; empty if it holds none."""
    text = prediction.strip()
    for mark in _ENDS:
        text = text.strip(mark)
    if not text:
        return ""
    padded = f" {text} "
    found = [*_within(padded), *_behind_phrases(padded), *_at_the_ends(text.strip(), len(padded))]
    found = found or [_Found(_ANYWHERE, padded.rfind(each), each) for each in _LETTERS if each in padded]
    return max(found, key=lambda each: each[:2]).letter if found else ""


def _within(text: str) -> Iterator[_Found]:
    for form, tells in _BESIDE:
        for letter in _LETTERS:
            place = text.rfind(form.format(letter))
            if place >= 0:
                yield _Found(tells, place, letter)


def _behind_phrases(text: str) -> Iterator[_Found]:
    """Of each letter the first place behind each phrase, wherever in a word that is."""
    lower = text.lower()
    for phrase in _PHRASES:
        at = lower.find(phrase)
        for letter in _LETTERS:
            place = text.find(letter, at + len(phrase)) if at >= 0 else -1
            if place >= 0:
                yield _Found(_SAID, place, letter)


def _at_the_ends(text: str, length: int) -> Iterator[_Found]:
    for letter in _LETTERS:
        if text.startswith(letter) and not text[1:2].isalpha():
            yield _Found(_FIRST, 0, letter)
        if text.endswith(letter) and not text[-2:-1].isalpha():
            yield _Found(_LAST, length - 1, letter)


METRIC = Metric("realworldqa_accuracy", realworldqa_accuracy)
