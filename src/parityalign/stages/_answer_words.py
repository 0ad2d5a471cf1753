"""Takes an answer apart into words that can be compared: one spelling, no articles, singular, one of several synonyms.

"The U.S. has 1,234 bicycles."  ->  ("usa", "has", "1234", "bike")
"""

import re
import unicodedata
from functools import lru_cache
from itertools import zip_longest

from parityalign.stages._near_words import singular
from parityalign.stages._quantities import tokens_of_chunk, with_numbers
from parityalign.stages._spellings import in_one_spelling
from parityalign.stages._synonyms import with_one_name

_CACHED_TEXTS = 1 << 14

_ARTICLES = frozenset({"a", "an", "the"})
NEGATIONS = frozenset(
    "no not never non without except neither nor cannot cant isnt arent wasnt werent doesnt dont didnt hasnt havent "
    "hadnt couldnt wouldnt shouldnt wont aint".split()
)
FILLERS = frozenset(
    "it its he she they there here this that these those is are was were be am pm oclock of in on at by from to "
    "i think see answer number called named name says say reads read written spelled about approximately "
    "approx around almost nearly roughly exactly just only please color option choice incorporated limited corporation "
    "www http https com image picture photo show shows "
    "his her their my your our him them plc llc gmbh aged since est established built founded".split()
)
"""Words that say nothing about an answer next to it."""

_PLAIN_MARKS = str.maketrans(
    {"’": "'", "‘": "'", "`": "'", "´": "'", "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-", "⁄": "/", "\xad": None}
)
_CHUNK = re.compile(r"(?:(?<!\w)(?:[-+]\.?|\.))?\d[\w.,:/]*|[^\W_]+|[$€£¥₹%¢°&<>≤≥#+]")
_DOTTED_LETTERS = re.compile(r"(?<![^\W_])(?:[^\W\d_]\.){2,}|(?<![^\W_])(?:[^\W\d_]\.)+[^\W\d_](?![^\W_])")
_NUMBER_SIGN = re.compile(r"(?:\bno\.? ?|\bnr\.? ?|№ ?|# ?)(?=\d)")
_RANGE = re.compile(r"(?<=\d) ?(?:to|through|until|-) ?(?=\d)")
_IN_BRACKETS = re.compile(r"^<([^<>]*)>$")
_MODEL_NUMBER = re.compile(r"\b([a-z]{1,2})-(?=(\d))\2")
_FRACTION_BEHIND = re.compile(r"(?<=\d)([¼½¾⅓⅔])")
_SHORT_SCALE = re.compile(r"([$€£] ?\d[\d.,]*) ?([kmb])\b")
_SCALE_AFTER_DECIMALS = re.compile(r"(\d\.\d+) ?([MB])\b")
_UNITS_OF_SEVERAL_WORDS = tuple(
    (re.compile(written), name)
    for written, name in (
        (r"\bu\.?s\.? ?(?:\$|dollars?\b)", "$"),
        (r"\bper cent\b|\bpercentage points?\b", "%"),
        (r"\bfl\.? ?(?:oz|ounces?)\b|\bfluid ounces?\b", "oz"),
        (r"° ?c\b", " celsius"),
        (r"° ?f\b", " fahrenheit"),
        (r"\bmiles? (?:per|an) hour\b", "mph"),
        (r"\bkm ?/ ?h\b|\bkilomet(?:er|re)s? (?:per|an) hour\b", "kph"),
    )
)
_SCALE_NAMES = {"k": "thousand", "m": "million", "b": "billion"}
_SPACED_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?: \d{3})+")
_SEPARATED_DIGITS = re.compile(r"\+?\(?\d{1,4}(?:[-. ()/]{1,2}\d{2,6})+")
_THREE_AND_FOUR = re.compile(r"(?:\d{3} )?\d{3} \d{4}")
_YEARS = re.compile(r"\d{4}\D+\d{4}")


@lru_cache(maxsize=_CACHED_TEXTS)
def plain(text: str) -> str:
    """Lower case, plain quotes and dashes, no accents on Latin letters, single spaces."""
    text = unicodedata.normalize("NFKC", _FRACTION_BEHIND.sub(r" \1", text))
    text = _SCALE_AFTER_DECIMALS.sub(lambda found: f"{found[1]} {_SCALE_NAMES[found[2].lower()]}", text)
    text = in_one_spelling(_without_accents(" ".join(text.casefold().split()).translate(_PLAIN_MARKS)))
    text = _SHORT_SCALE.sub(lambda found: f"{found[1]} {_SCALE_NAMES[found[2]]}", text)
    for written, name in _UNITS_OF_SEVERAL_WORDS:
        text = written.sub(name, text)
    text = _MODEL_NUMBER.sub(r"\1\2", _IN_BRACKETS.sub(r"\1", text))
    return _RANGE.sub("-", _NUMBER_SIGN.sub("", text))


@lru_cache(maxsize=_CACHED_TEXTS)
def tokens(text: str) -> tuple[str, ...]:
    """Words, numbers and codes of a text in one spelling, without articles."""
    text = plain(text)
    if _SPACED_THOUSANDS.fullmatch(text):
        text = text.replace(" ", "")
    elif _is_phone_number(text):
        return ("".join(letter for letter in text if letter.isdecimal()),)
    text = _DOTTED_LETTERS.sub(lambda found: found[0].replace(".", ""), text).replace("'", "")
    parts = [token for chunk in _CHUNK.findall(text) for token in tokens_of_chunk(chunk)]
    kept = [part for part, after in zip_longest(parts, parts[1:], fillvalue="") if not _is_article(part, after)]
    return tuple(with_numbers(kept))


@lru_cache(maxsize=_CACHED_TEXTS)
def words(text: str) -> tuple[str, ...]:
    """The tokens of a text in the singular, and one word for those that mean the same."""
    return with_one_name([singular(token) for token in tokens(text)])


def squeezed(text: str) -> str:
    """The tokens without spaces, but for those between two digits: `AB 123` is `AB123`, `1 2` is not `12`."""
    joined = " ".join(tokens(text))
    return re.sub(r"(?<!\d) | (?!\d)", "", joined)


def _is_article(word: str, after: str) -> bool:
    """An article is followed by a word: the A of `grade A` and of `A 12` is a letter."""
    return word in _ARTICLES and after != "" and not (word == "a" and has_digit(after))


def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    kept: list[str] = []
    for letter in unicodedata.normalize("NFD", text):
        # In other scripts such marks make other letters.
        if not unicodedata.combining(letter) or not (kept and kept[-1].isascii()):
            kept.append(letter)
    return unicodedata.normalize("NFC", "".join(kept))


def _is_phone_number(text: str) -> bool:
    digits = sum(map(str.isdecimal, text))
    marked = "-" in text or "(" in text or _THREE_AND_FOUR.fullmatch(text) is not None
    return 7 <= digits <= 15 and marked and _SEPARATED_DIGITS.fullmatch(text) is not None and not _YEARS.fullmatch(text)


def has_digit(word: str) -> bool:
    """Whether a token is a number or a code."""
    return any(map(str.isdecimal, word))
