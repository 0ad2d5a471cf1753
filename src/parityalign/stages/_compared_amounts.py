"""Compares two numbers, with or without a unit, as answers to a question."""

import re
from collections.abc import Sequence
from fractions import Fraction

from parityalign.stages._number_words import SCALES, decimals, number_text
from parityalign.stages._outcomes import Compared, Outcome, Question
from parityalign.stages._quantities import (
    Quantity,
    may_be_same_quantity,
    nearly_same_in_other_units,
    same_quantity,
)

_COMPUTED = re.compile(r"\b(?:average|mean|ratio|difference|sum|total|how many times)\b")
_CHANGE = re.compile(r"\b(?:differen|chang|gap|drop|declin|decreas|fall|fell|increas|rise|rose|growth)")
_ABOUT = re.compile(r"\b(?:about|around|approx(?:imately|\.)?|roughly|nearly|almost)\b|[~<>]")
_SHARE = re.compile(r"\b(?:percent|percentage|share|proportion|rate)\b|%")
_SCALE = re.compile(rf"\b(?:{'|'.join(SCALES)})s?\b")
_PARTS = re.compile(r"(\d+(?:\.\d+)?) ?(?:[:/-]|to) ?(\d+(?:\.\d+)?)")
_RATIO = re.compile(r"\bratio\b")
_NEARLY = Fraction(5, 100)
"""How far two numbers may be apart, if one is said to be rough, so that it may be the other."""
_TELLING_DIGITS = 3
"""So many equal digits are no coincidence."""


def compare_amounts(one: Quantity, other: Quantity, texts: Sequence[str], question: Question) -> Compared:
    """What two numbers come to; the texts are in lower case, and tell how the numbers were written."""
    if same_quantity(one, other):
        return Compared(Outcome.RIGHT, "the same number")
    if nearly_same_in_other_units(one, other):
        return Compared(Outcome.RIGHT, "the same in other units")
    if not (one.unit or other.unit) and _is_share_of(one.value, other.value):
        outcome = Outcome.RIGHT if question.has(_SHARE) else Outcome.UNSURE
        return Compared(outcome, "a share and its percentage")
    if may_be_same_quantity(one, other) and not all(map(_SCALE.search, texts)):
        if _without_its_scale(one, other, texts):
            return Compared(Outcome.RIGHT, "the same number, without its thousands or millions")
        if question.has(_COMPUTED) and all(_digits(each.value) >= _TELLING_DIGITS for each in (one, other)):
            return Compared(Outcome.RIGHT, "the same number, rounded")
        return Compared(Outcome.UNSURE, "perhaps the same number, rounded")
    if one.value == -other.value and question.has(_CHANGE):
        return Compared(Outcome.UNSURE, "the same number but for its sign")
    if any(map(_ABOUT.search, texts)) and _are_near(one, other):
        return Compared(Outcome.UNSURE, "perhaps the same number, roughly")
    return Compared(Outcome.WRONG, "other numbers")


def compare_ratios(values: Sequence[Quantity | None], texts: Sequence[str], question: Question) -> Compared | None:
    """What `1:2` and `0.5` come to, where a ratio is asked for or one is a decimal number; None where neither is.

    Args:
        values: The numbers that the answers are, if they are numbers.
        texts: The answers in lower case.
        question: What is asked.
    """
    parts = [_PARTS.fullmatch(text) for text in texts]
    if not any(parts) or not (question.has(_RATIO) or any(value and decimals(value.value) for value in values)):
        return None
    ratios = [
        Fraction(part[1]) / Fraction(part[2]) if part and Fraction(part[2]) else value.value if value else None
        for part, value in zip(parts, values, strict=True)
    ]
    if ratios[0] is None or ratios[1] is None:
        return None
    rounded = [part is None and value is not None for part, value in zip(parts, values, strict=True)]
    if ratios[0] == ratios[1] or (any(rounded) and abs(ratios[0] - ratios[1]) * 200 <= 1):
        return Compared(Outcome.RIGHT, "the same ratio")
    if not question.has(_RATIO):
        return None
    near = abs(ratios[0] - ratios[1]) * 100 <= 1
    return Compared(Outcome.UNSURE, "nearly the same ratio") if near else Compared(Outcome.WRONG, "other ratios")


def _is_share_of(one: Fraction, other: Fraction) -> bool:
    share, percentage = sorted((one, other))
    return 0 < share < 1 and percentage == 100 * share


def _without_its_scale(one: Quantity, other: Quantity, texts: Sequence[str]) -> bool:
    """Whether only one has a word such as million, and the digits are too many for a coincidence."""
    scaled = [_SCALE.search(text) is not None for text in texts]
    telling = _digits(one.value) >= _TELLING_DIGITS or any(decimals(each.value) for each in (one, other))
    return scaled[0] != scaled[1] and telling and _digits(one.value) == _digits(other.value)


def _digits(value: Fraction) -> int:
    """Digits of a number without the zeros at its ends."""
    return len(number_text(abs(value)).replace(".", "").strip("0"))


def _are_near(one: Quantity, other: Quantity) -> bool:
    same_kind = not (one.unit and other.unit) or one.unit == other.unit
    return same_kind and abs(one.value - other.value) <= _NEARLY * max(abs(one.value), abs(other.value))
