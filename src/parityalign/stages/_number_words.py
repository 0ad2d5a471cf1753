"""Numbers in words: finds them among the tokens of an answer and writes them in digits.

    ["twenty", "five", "dogs"]  ->  ["25", "dogs"]          ["12.5", "million"]  ->  ["12500000"]

word2number (MIT) was looked at: it raises on what holds no number, finds one in a text only, and its last release is of
2018.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_ORDINALS = {
    word: value
    for value, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(), start=1
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
SCALES = {
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "mn": 10**6,
    "mio": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "bn": 10**9,
    "trillion": 10**12,
}
_DOZENS = {"dozen": 12}
_CANONICAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")


def with_digits(tokens: Sequence[str]) -> list[str]:
    """The tokens, with each number in words as one number in digits."""
    merged: list[str] = []
    place = 0
    while place < len(tokens):
        value, used = _spelled(tokens, place)
        merged.append(tokens[place] if value is None else number_text(value))
        place += max(1, used)
    return merged


def number_of(token: str) -> Fraction | None:
    """The number that a token of an answer is; a code such as `007` or `10:30` is none."""
    return Fraction(token) if _CANONICAL.fullmatch(token) else None


def number_text(value: Fraction) -> str:
    """A number with a finite decimal form in its one spelling."""
    places = decimals(value)
    if not places:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def decimals(value: Fraction) -> int:
    """How many decimals a number needs; its denominator has no other prime factors than 2 and 5."""
    left, places = value.denominator, 0
    while left > 1:
        left //= 10 if left % 10 == 0 else 2 if left % 2 == 0 else 5
        places += 1
    return places


def _spelled(tokens: Sequence[str], start: int) -> tuple[Fraction | None, int]:
    """The number that begins at a place, in words or in digits and words, and how many tokens it takes."""
    total, group, before, smallest = Fraction(0), Fraction(0), "start", 10**15
    place = start
    while place < len(tokens):
        kind, value = _piece(tokens[place])
        if kind == "and" and before in ("hundred", "scale") and _piece(_next(tokens, place))[0] in ("small", "tens"):
            place += 1
            continue
        if before not in _FOLLOWS[kind] or not _fits(kind, value, before, group, smallest):
            break
        if kind == "scale":
            total, group, smallest = total + (group or 1) * value, Fraction(0), int(value)
        else:
            group = (group or 1) * value if kind in ("hundred", "dozen") else group + value
        before = kind
        place += 1
    return (total + group, place - start) if place > start else (None, 0)


_FOLLOWS: Mapping[str, Collection[str]] = {
    "digits": ("start",),
    "small": ("start", "tens", "hundred", "scale"),
    "ordinal": ("start", "tens", "hundred", "scale"),
    "tens": ("start", "hundred", "scale"),
    "dozen": ("start", "digits", "small"),
    "hundred": ("start", "digits", "small", "tens"),
    "scale": ("start", "digits", "small", "tens", "hundred"),
    "and": (),
    "none": (),
}
"""What may stand before each kind of piece of a number in words."""


def _next(tokens: Sequence[str], place: int) -> str:
    return tokens[place + 1] if place + 1 < len(tokens) else ""


def _fits(kind: str, value: Fraction, before: str, group: Fraction, smallest: int) -> bool:
    if before == "tens" and kind in ("small", "ordinal"):
        return 0 < value < 10
    if kind == "hundred":
        return group < 100
    return kind != "scale" or value < smallest


def _piece(word: str) -> tuple[str, Fraction]:
    """What a token is in a number in words, and its value."""
    kinds = (("small", _SMALL), ("ordinal", _ORDINALS), ("tens", _TENS), ("scale", SCALES), ("dozen", _DOZENS))
    for kind, values in kinds:
        if word in values:
            return kind, Fraction(values[word])
    if word in ("hundred", "and"):
        return word, Fraction(100)
    digits = number_of(word)
    return ("none", Fraction(0)) if digits is None else ("digits", digits)
