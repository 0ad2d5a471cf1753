"""Times, seasons, fractions and limits in the spellings that people use, brought to one before words are compared.

"quarter past three"  ->  "3:15"        "9am to 5pm"  ->  "9 am to 5 pm"        "2018/19"   ->  "2018-2019"
"half an hour"        ->  "0.5 hour"    "65 or older" ->  "65+"                 "under 18"  ->  "<18"
"""

import re
from collections.abc import Callable

_HOURS = "one two three four five six seven eight nine ten eleven twelve".split()
_ORDINALS = "first second third fourth".split()
_MINUTES = {"quarter": 15, "half": 30, "five": 5, "ten": 10, "twenty": 20, "twenty five": 25}
_PARTS = {"half": "5", "1/2": "5", "1/4": "25", "3/4": "75"}
_COMPASS = {"n": "north", "s": "south", "e": "east", "w": "west"}
_THIS_CENTURY = 40
"""Two digits of a year from which it was in the last century."""


def _clock(found: re.Match[str]) -> str:
    hour = int(found[3]) if found[3].isdecimal() else _HOURS.index(found[3]) + 1
    minutes = _MINUTES[found[1]]
    if found[2] == "to":
        if found[1] != "quarter":  # "ten to five" may be a range or a score
            return found[0]
        hour, minutes = hour - 1 or 12, 60 - minutes
    return f"{hour}:{minutes:02}"


def _year(found: re.Match[str]) -> str:
    return f"{'20' if int(found[1]) < _THIS_CENTURY else '19'}{found[1]}"


def _season(found: re.Match[str]) -> str:
    """`2018/19` in full; other numbers behind a year, as in a date, stay."""
    return f"{found[1]}-{int(found[1]) + 1}" if (int(found[1]) + 1) % 100 == int(found[2]) else found[0]


def _feet(found: re.Match[str]) -> str:
    return f"{found[1]} ft" if int(found[2] or 0) == 0 else f"{found[1]} ft {found[2]} in"


def _fraction(found: re.Match[str]) -> str:
    return f"{found[1] or 0}.{_PARTS[found[2]]}"


def _century(found: re.Match[str]) -> str:
    return f"{int(found[1]) - 1}00s"


def _quarter(found: re.Match[str]) -> str:
    return f"q{found[1][0] if found[1][0].isdecimal() else _ORDINALS.index(found[1]) + 1}"


def _part(found: re.Match[str]) -> str:
    return f"0.{_PARTS[found[1]]} {found[2]}"


def _compass(found: re.Match[str]) -> str:
    return f"{_COMPASS[found[1]]} {found[2]}"


def _compass_behind(found: re.Match[str]) -> str:
    return f"{found[1]} {_COMPASS[found[2]]}"


_Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_RULES: tuple[_Rule, ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"\b(?:a )?(quarter|half|twenty five|twenty|ten|five) (past|to) ({'|'.join(_HOURS)}|1[0-2]|[1-9])\b", _clock),
        (r"(\d) ?([ap])\.? ?m\b\.?", r"\1 \2m"),
        (r"(?<![\w'])'(\d\d)(?![\w'])", _year),
        (r"\b((?:19|20)\d\d) ?[/-] ?(?:(?:19|20)(?=\d\d\b))?(\d\d)\b(?![/-])", _season),
        (r"(?<![\w'])'?([2-9]0)'?s\b", r"19\1s"),
        (r"(?<![\w'\"])(\d{1,3}) ?' ?(?:(\d{1,2}) ?(?:\"|''))?(?!\w)", _feet),
        (r"\b(\d+) (1/2|1/4|3/4)\b", _fraction),
        (r"\b(half|1/2|1/4|3/4) (?:an? )?(hour|mile|cup|inch|pound|gallon|liter|litre|teaspoon|tablespoon)\b", _part),
        (r"(?<=\d)(%?) (?:years? )?(?:and|or) (?:older|over|above|up|more)\b", r"\1+"),
        (r"(?<=\d)[ -]?years?[ -](?:olds?|of age)\b", " years"),
        (r"\b(?:less than|fewer than|under|below) (?=[$€£]?\d)", "<"),
        (r"\b(?:(?:more|greater) than|over|above) (?=[$€£]?\d)", ">"),
        (r"^(?:minus|negative) (?=[$€£]?\d)", "-"),
        (r"\b(1\d|2[01])(?:th|st) century\b", _century),
        (r"\b(\w+)n't\b", r"\1 not"),
        (r"(?<=\d) ?/ ?(?=[a-z])", " per "),
        (r"^(\w+) (?:is )?(?:prohibited|forbidden|not allowed)$", r"no \1"),
        (r"^an? (?=(?:hour|minute|second|day|week|month|year|mile|dozen|hundred|thousand|million)$)", "1 "),
        (r"\b(first|second|third|fourth|1st|2nd|3rd|4th) quarter(?: of)?\b", _quarter),
        (r"^twice$", "2 times"),
        (r"(?<=%) off\b", ""),
        (r"\binterstate (?=\d)", "i"),
        (r"^([nsew])\.? (africa|korea|america|sudan|carolina|dakota|ireland)\b", _compass),
        (r"\b(st|street|ave|avenue|rd|road|blvd)\.? ([nsew])\b", _compass_behind),
    )
)


def in_one_spelling(text: str) -> str:
    """A text in lower case with single spaces, in one of several spellings."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
