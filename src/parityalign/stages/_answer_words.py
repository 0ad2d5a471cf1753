"""Takes an answer apart into words that can be compared: one spelling, no articles, singular, one of several synonyms.

    "The U.S. has 1,234 bicycles."  ->  ("usa", "has", "1234", "bike")

The tables are short and kept by hand: WordNet is 30 MB, and its synonyms hold for some sense of a word, seldom for the
one that is meant.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest

from parityalign.stages._near_words import singular
from parityalign.stages._quantities import tokens_of_chunk, with_numbers

_CACHED_TEXTS = 1 << 14

_ARTICLES = frozenset({"a", "an", "the"})
NEGATIONS = frozenset(
    "no not never non without except neither nor cannot cant isnt arent wasnt werent doesnt dont didnt hasnt havent "
    "hadnt couldnt wouldnt shouldnt wont aint".split()
)
FILLERS = frozenset(
    "it its he she they there here this that these those is are was were be am pm oclock of in on at by "
    "i think see answer number called named name says say reads read written spelled about approximately "
    "approx around roughly exactly just only please color option choice incorporated limited corporation "
    "www http https com image picture photo show shows".split()
)
"""Words that say nothing about an answer next to it."""

# The first word of a line stands for the others. Words with another common meaning in short answers are left out, such
# as "mobile" or "apartment" / "flat".
_SYNONYMS = """
    bike = bicycle
    motorcycle = motorbike, motor bike, motor cycle
    tv = television, tv set, television set, telly
    couch = sofa
    plane = airplane, aeroplane, aircraft
    phone = telephone, cellphone, cell phone, mobile phone, smartphone, smart phone
    fridge = refrigerator
    photo = photograph
    car = automobile
    child = kid
    mom = mother, mum
    dad = father
    woman = lady
    trash = rubbish, garbage
    laptop = laptop computer
    donut = doughnut
    truck = lorry
    hamburger = burger
    fries = french fries
    pant = trouser
    coke = coca cola, cocacola
    pepsi = pepsi cola
    ok = okay
    and = &
    gray = grey
    color = colour
    favorite = favourite
    center = centre
    theater = theatre
    tire = tyre
    harbor = harbour
    flavor = flavour
    neighbor = neighbour
    jewelry = jewellery
    yogurt = yoghurt
    pajama = pyjama
    license = licence
    mustache = moustache
    aluminum = aluminium
    catalog = catalogue
    program = programme
    usa = united state of america, united state
    uk = united kingdom
    january = jan
    february = feb
    april = apr
    august = aug
    september = sep, sept
    october = oct
    november = nov
    december = dec
    monday = mon
    tuesday = tue, tues
    wednesday = wed
    thursday = thu, thur, thurs
    friday = fri
    st = street, saint
    nyc = new york city, new york
    la = los angeles
    half = 1/2
    nobody = no one
    avenue = ave
    boulevard = blvd
    mount = mt
    doctor = dr
    mister = mr
    company = co
    incorporated = inc
    limited = ltd
    corporation = corp
    versus = vs
    yes = yeah, yep, yup
    no = nope
"""
_WHOLE_SYNONYMS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("us",): ("usa",),
    ("america",): ("usa",),
    ("none",): ("0",),
}
"""Only where they are the whole answer: within one, `us` may be a pronoun."""
_PLAIN_MARKS = str.maketrans(
    {"’": "'", "‘": "'", "`": "'", "´": "'", "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-", "⁄": "/", "\xad": None}
)
_CHUNK = re.compile(r"(?:(?<!\w)(?:[-+]\.?|\.))?\d[\w.,:/]*|[^\W_]+|[$€£¥₹%¢°&<>≤≥#+]")
_DOTTED_LETTERS = re.compile(r"(?<![^\W_])(?:[^\W\d_]\.){2,}|(?<![^\W_])(?:[^\W\d_]\.)+[^\W\d_](?![^\W_])")
_NUMBER_SIGN = re.compile(r"(?:\bno\.? ?|\bnr\.? ?|№ ?|# ?)(?=\d)")
_RANGE = re.compile(r"(?<=\d) ?(?:to|through|until|-) ?(?=\d)")
_IN_BRACKETS = re.compile(r"^<([^<>]*)>$")
_MODEL_NUMBER = re.compile(r"\b([a-z]{1,2})-(?=(\d))\2")
_SHORT_SCALE = re.compile(r"([$€£] ?\d[\d.,]*) ?([kmb])\b")
_SCALE_AFTER_DECIMALS = re.compile(r"(\d\.\d+) ?([MB])\b")
_UNITS_OF_SEVERAL_WORDS = tuple(
    (re.compile(written), name)
    for written, name in (
        (r"\bus ?\$", "$"),
        (r"\bper cent\b", "%"),
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


def plain(text: str) -> str:
    """Lower case, plain quotes and dashes, no accents on Latin letters, single spaces."""
    text = unicodedata.normalize("NFKC", text)
    text = _SCALE_AFTER_DECIMALS.sub(lambda found: f"{found[1]} {_SCALE_NAMES[found[2].lower()]}", text)
    text = _without_accents(" ".join(text.casefold().split()).translate(_PLAIN_MARKS))
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
    found = _with_synonyms([singular(token) for token in tokens(text)])
    return _WHOLE_SYNONYMS.get(found, found)


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


def _synonym_table() -> dict[tuple[str, ...], tuple[str, ...]]:
    table = {}
    for line in _SYNONYMS.strip().splitlines():
        name, others = line.split(" = ")
        for other in others.split(", "):
            table[tuple(other.split())] = tuple(name.split())
    return table


_TABLE = _synonym_table()
_LONGEST = max(map(len, _TABLE))


def _with_synonyms(found: Sequence[str]) -> tuple[str, ...]:
    named: list[str] = []
    place = 0
    while place < len(found):
        for length in range(min(_LONGEST, len(found) - place), 0, -1):
            part = tuple(found[place : place + length])
            if part in _TABLE:
                named += _TABLE[part]
                break
        else:
            length = 1
            named.append(found[place])
        place += length
    return tuple(named)


def has_digit(word: str) -> bool:
    """Whether a token is a number or a code."""
    return any(map(str.isdecimal, word))
