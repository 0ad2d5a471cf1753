"""Numbers with units in answers: digits with separators, percent, currency, measures.

"1,234.50kg"  ->  ["1234.5", "kg"]  ->  Quantity(1234.5, "kg")
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from parityalign.stages._number_words import SCALES, decimals, number_of, number_text, with_digits


class Quantity(NamedTuple):
    """A number with its unit."""

    value: Fraction
    unit: str
    """As `_UNITS` names it; empty if there is none."""


_CURRENCIES = frozenset("$€£¥₹")

# kind, name, how many of the kind's first unit, other names. Names without an entry here are words like any other.
_UNIT_ROWS: tuple[tuple[str, str, int | Fraction, str], ...] = (
    ("length", "m", 1, "meter metre"),
    ("length", "mm", Fraction(1, 1000), "millimeter millimetre"),
    ("length", "cm", Fraction(1, 100), "centimeter centimetre"),
    ("length", "km", 1000, "kilometer kilometre"),
    ("length", "inch", Fraction(254, 10000), "in inches"),
    ("length", "ft", Fraction(3048, 10000), "foot feet"),
    ("length", "yd", Fraction(9144, 10000), "yard"),
    ("length", "mi", Fraction(1609344, 1000), "mile"),
    ("mass", "g", 1, "gram gm gr"),
    ("mass", "mg", Fraction(1, 1000), "milligram"),
    ("mass", "kg", 1000, "kilogram kilo"),
    ("mass", "t", 10**6, "ton tonne"),
    ("mass", "oz", Fraction(28349523125, 10**9), "ounce"),
    ("mass", "lb", Fraction(45359237, 10**5), ""),
    ("volume", "l", 1, "liter litre"),
    ("volume", "ml", Fraction(1, 1000), "milliliter millilitre"),
    ("volume", "cl", Fraction(1, 100), "centiliter centilitre"),
    ("time", "min", 1, "minute"),
    ("time", "sec", Fraction(1, 60), "second"),
    ("time", "h", 60, "hour hr"),
    ("time", "day", 1440, ""),
    ("time", "week", 10080, "wk"),
    ("months", "month", 1, ""),
    ("months", "year", 12, "yr"),
    ("speed", "kph", 1, "kmh"),
    ("speed", "mph", Fraction(1609344, 10**6), ""),
    ("share", "%", 1, "percent pct percentage point"),
    ("dollar", "$", 1, "dollar usd buck"),
    ("euro", "€", 1, "euro eur"),
    ("sterling", "£", 1, "gbp"),
    ("yen", "¥", 1, "yen jpy"),
    ("rupee", "₹", 1, "rupee inr rs"),
    ("dollar", "cent", Fraction(1, 100), "¢"),
    ("celsius", "celsius", 1, "centigrade"),
    ("fahrenheit", "fahrenheit", 1, ""),
    *(
        (name, name, 1, other)
        for name, other in (("kcal", "calorie cal"), ("w", "watt"), ("v", "volt"), ("kw", "kilowatt"))
    ),
    *((name, name, 1, other) for name, other in (("gb", "gigabyte"), ("mb", "megabyte"), ("tb", "terabyte"))),
)
_UNITS: Mapping[str, tuple[str, Fraction]] = {name: (kind, Fraction(size)) for kind, name, size, _ in _UNIT_ROWS}
_UNIT_NAMES = {name: name for name in _UNITS} | {
    other: name for _, name, _, more in _UNIT_ROWS for other in more.split()
}
_NO_UNITS = frozenset({"degree", "degrees", "deg", "°", "pound", "pounds", "unit", "units"})
"""Say nothing of the kind: of temperature or angle, of money or weight."""

_NUMBER = re.compile(
    r"""([-+]?) (?:
        (?P<plain>\d+) | (?P<point>\d*\.\d+) | (?P<comma>\d+,\d{1,2})
        | (?P<grouped>(?:\d{1,3}(?:,\d{3})+ | \d{1,2}(?:,\d\d)+,\d{3}) (?:\.\d+)?)
        | (?P<dotted>\d{1,3}(?:\.\d{3}){2,} | \d{1,3}(?:\.\d{3})+,\d+)
    )""",
    re.VERBOSE,
)
_LETTERS_AFTER = re.compile(r"([-+]?[\d.,]*\d)([^\W\d_]+)")
_ORDINAL_ENDS = frozenset({"st", "nd", "rd", "th"})
_SEPARATORS = ".,:/"


def tokens_of_chunk(chunk: str) -> list[str]:
    """The tokens of a run of digits, letters and the marks between digits, such as `1,234.50kg` or `05/12/2019`."""
    chunk = chunk.rstrip(_SEPARATORS)
    if (number := _number(chunk)) is not None:
        return [number]
    if not any(mark in chunk for mark in _SEPARATORS):
        return _with_letters(chunk)
    if all(letter.isdecimal() or letter in _SEPARATORS for letter in chunk):
        return [_clock_or_code(chunk)]
    if found := _LETTERS_AFTER.fullmatch(chunk):
        return _with_letters(chunk) if _number(found[1]) is not None else [chunk]
    return [token for part in re.split(r"[.,:/]+", chunk) if part for token in tokens_of_chunk(part)]


def with_numbers(tokens: Sequence[str]) -> list[str]:
    """The tokens with numbers in words as digits, and units by one name behind their number."""
    return _with_units(with_digits(tokens))


def quantity(tokens: Sequence[str]) -> Quantity | None:
    """The number that the tokens of `with_numbers` are, with or without a unit; None if they are more or other."""
    value = number_of(tokens[0]) if tokens else None
    if value is None or len(tokens) > 2:
        return None
    unit = tokens[1] if len(tokens) == 2 else ""
    return Quantity(value, unit) if not unit or unit in _UNITS else None


def same_quantity(one: Quantity, other: Quantity) -> bool:
    """Whether two quantities are equal; a unit that only one has is not looked at, and 62 % or cents are 0.62."""
    if one.unit and other.unit:
        (kind, size), (other_kind, other_size) = _UNITS[one.unit], _UNITS[other.unit]
        return kind == other_kind and one.value * size == other.value * other_size
    if one.value == other.value:
        return True
    hundredths = [each.unit in ("%", "cent") for each in (one, other)]
    values = [each.value / 100 if small else each.value for each, small in zip((one, other), hundredths, strict=True)]
    return any(hundredths) and values[0] == values[1]


def nearly_same_in_other_units(one: Quantity, other: Quantity) -> bool:
    """Whether two quantities of a kind in different units are equal but for rounding: 18 ft and 5.5 m."""
    if not one.unit or not other.unit or one.unit == other.unit:
        return False
    (kind, size), (other_kind, other_size) = _UNITS[one.unit], _UNITS[other.unit]
    values = one.value * size, other.value * other_size
    return kind == other_kind and abs(values[0] - values[1]) * 50 <= max(map(abs, values))


def may_be_same_quantity(one: Quantity, other: Quantity) -> bool:
    """Whether one is the other rounded to fewer decimals, or the other without its thousands or millions."""
    if one.unit and other.unit and one.unit != other.unit:
        return False
    small, large = sorted((abs(one.value), abs(other.value)))
    if (one.value < 0) == (other.value < 0) and any(large == small * scale for scale in (10**3, 10**6, 10**9) if small):
        return True
    finer, coarser = sorted((one.value, other.value), key=decimals, reverse=True)
    places = decimals(coarser)
    return decimals(finer) > places and abs(finer - coarser) * 2 * 10**places <= 1


def _number(text: str) -> str | None:
    found = _NUMBER.fullmatch(text)
    if found is None or not found[0].isascii():
        return None
    sign = "-" if found[1] == "-" else ""
    if (plain := found["plain"]) is not None:
        # Leading zeros belong to codes and dates: they are kept.
        return f"{sign}{plain}" if plain.strip("0") else ("0" if len(plain) == 1 else plain)
    if found["dotted"] or found["comma"]:
        digits = text[len(found[1]) :].replace(".", "").replace(",", ".")
    else:
        digits = text[len(found[1]) :].replace(",", "")
    return number_text(Fraction(f"{sign}{digits}"))


def _with_letters(chunk: str) -> list[str]:
    """Digits with an ordinal's ending or a unit behind them are a number; else it is a word or a code."""
    found = _LETTERS_AFTER.fullmatch(chunk)
    number = _number(found[1]) if found else None
    if found is None or number is None:
        return [chunk]
    if found[2] in _ORDINAL_ENDS:
        return [number]
    if found[2] == "k":
        return [number, "thousand"]
    return [number, found[2]] if found[2] in _UNIT_NAMES or found[2] in SCALES else [chunk]


def _clock_or_code(chunk: str) -> str:
    """`09:00` is 9, `05/12/2019` the same as `5/12/2019`; other codes stay as they are."""
    if clock := re.fullmatch(r"0?(\d{1,2}):(\d\d)", chunk):
        return clock[1] if clock[2] == "00" else f"{clock[1]}:{clock[2]}"
    return re.sub(r"(?<![\d.])0+(?=\d)", "", chunk) if "/" in chunk else chunk


def _with_units(tokens: Sequence[str]) -> list[str]:
    """Currency signs behind their number, units by one name, words that say nothing of the unit left out."""
    turned = list(tokens)
    for place in range(len(turned) - 1):
        if _UNIT_NAMES.get(turned[place]) in _CURRENCIES and number_of(turned[place + 1]) is not None:
            turned[place : place + 2] = turned[place + 1], turned[place]
    named: list[str] = []
    for place, token in enumerate(turned):
        if not named or number_of(named[-1]) is None:
            named += [] if token in _CURRENCIES and token in named[-1:] else [token]
        elif token not in _NO_UNITS:
            named.append(_unit_name(token, last=place == len(turned) - 1))
    return named


def _unit_name(word: str, *, last: bool) -> str:
    if word == "in" and not last:
        return word
    return _UNIT_NAMES.get(word) or _UNIT_NAMES.get(word.removesuffix("s") if len(word) > 3 else word, word)


def is_unit(word: str) -> bool:
    """Whether a word, as `with_numbers` leaves it, is a unit."""
    return word in _UNITS
