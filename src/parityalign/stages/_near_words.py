"""Words that are nearly the same: plurals, other forms, misspellings; and opposites that only look so.

The table of plurals is short; inflect (MIT) takes names, and words such as "bus", for plurals.
"""

from rapidfuzz.distance import OSA, Levenshtein

NEAR = 0.9
"""Similarity from which two long words are one, misspelt."""
_STEM = 0.6
"""Share of the shorter word that two words of one stem have in common at least."""
LONG_WORD = 8
"""Letters from which a word is long; one wrong letter of eight leaves it open (adaption, adoption), of ten not."""

_PLURALS = (
    "men women children people feet teeth geese mice lives wives knives leaves wolves shelves loaves halves calves "
    "potatoes tomatoes heroes mangoes buses viruses octopuses cacti oxen"
)
_SINGULARS = (
    "man woman child person foot tooth goose mouse life wife knife leaf wolf shelf loaf half calf "
    "potato tomato hero mango bus virus octopus cactus ox"
)
_NO_PLURALS = "series species news glasses arms goods customs fries yes"
_IRREGULAR = {
    **dict(zip(_PLURALS.split(), _SINGULARS.split(), strict=True)),
    **{word: word for word in _NO_PLURALS.split()},
}
"""Plurals that are not formed by the rules, and words that only look like plurals."""


_OPPOSITE_BEGINNINGS = (
    *((beginning, "") for beginning in "un in im il ir non dis mis a anti de".split()),
    *(("micro", "macro"), ("hyper", "hypo"), ("inter", "intra"), ("pre", "post"), ("over", "under"), ("im", "ex")),
    *(
        ("in", "ex"),
        ("in", "out"),
        ("up", "down"),
        ("e", "im"),
        ("max", "min"),
        ("m", "p"),
        ("sub", "super"),
        ("north", "south"),
    ),
)
_OPPOSITE_ENDS = (("ful", "less"), ("er", "ee"), ("or", "ee"), ("east", "west"))


def singular(word: str) -> str:
    """A word without the ending of a plural; what is no plural but looks like one may become a word of its own."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 3 or not word.isalpha() or word.endswith(("ss", "us", "is")) or not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("sses", "xes", "zzes", "ches", "shes")) else word[:-1]


def same_but_for_ing(one: str, other: str) -> bool:
    """Whether one is the other's form in -ing: surf and surfing, ride and riding, run and running."""
    short, long = sorted((one, other), key=len)
    stem = long.removesuffix("ing")
    once = stem[:-1] if stem[-2:-1] == stem[-1:] else stem
    return stem != long and len(short) > 2 and short in (stem, f"{stem}e", once)


def one_begins_the_other(one: str, other: str) -> bool:
    """Whether one word is the other with an ending, which may or may not be another thing: wooden, rainy, poster."""
    short, long = sorted((one, other), key=len)
    return len(short) >= 4 and len(long) - len(short) <= 3 and long.isalpha() and long.startswith(short)


def misspelt(one: str, other: str) -> bool:
    """Whether two long words are so near that they are one, misspelt."""
    distance = _distance(one, other)
    return distance is not None and distance <= (1 - NEAR) * max(len(one), len(other)) + 1e-9


def one_letter_off(one: str, other: str) -> bool:
    """Whether two long words differ in one letter."""
    return _distance(one, other) in (0, 1)


def same_but_for_doubling(one: str, other: str) -> bool:
    """Whether two words of seven letters and more differ in a doubled letter, which is no other form of a verb."""
    short, long = sorted((one, other), key=len)
    spelt = _is_slip(one, other) and len(long) == len(short) + 1 and _undoubled(one) == _undoubled(other)
    return spelt and len(short) >= 7 and not long.endswith(("ing", "ed", "er"))


def may_be_slip(one: str, other: str) -> bool:
    """Whether a letter within one of two words is left out, or swapped with the next: leather and lether."""
    return _is_slip(one, other) and len(max(one, other, key=len)) >= 6


def may_be_of_one_stem(one: str, other: str) -> bool:
    """Whether two words begin alike for most of the shorter, as happy and happiness, or are long and nearly alike."""
    if not (one.isalpha() and other.isalpha()) or one[0] != other[0] or opposite(one, other):
        return False
    shortest = min(len(one), len(other))
    alike = next((at for at in range(shortest) if one[at] != other[at]), shortest)
    near = shortest >= 7 and Levenshtein.distance(one, other, score_cutoff=2) <= 2
    return near or (alike >= 4 and alike >= _STEM * shortest)


def may_be_misread(one: str, other: str) -> bool:
    """Whether two names of five letters and more differ in one letter behind the first."""
    shortest, alpha = min(len(one), len(other)), one.isalpha() and other.isalpha()
    return alpha and shortest >= 5 and one[0] == other[0] and Levenshtein.distance(one, other, score_cutoff=1) == 1


def _is_slip(one: str, other: str) -> bool:
    ends = one[:1] == other[:1] and one[-1:] == other[-1:]
    swapped = len(one) != len(other) or Levenshtein.distance(one, other) == 2
    return ends and swapped and one.isalpha() and other.isalpha() and OSA.distance(one, other, score_cutoff=1) == 1


def _undoubled(word: str) -> str:
    return "".join(letter for letter, before in zip(word, f" {word}", strict=False) if letter != before)


def _distance(one: str, other: str) -> int | None:
    """How many letters differ; None if a word is short or holds anything without a lower and an upper case."""
    long = min(len(one), len(other)) >= LONG_WORD
    cased = all(letter.upper() != letter for word in (one, other) for letter in word)
    return Levenshtein.distance(one, other) if long and cased else None


def opposite(one: str, other: str) -> bool:
    """Whether two words differ in a beginning or an end that makes the opposite, as in likely and unlikely."""
    return any(
        _differ_at(one, other, first, second, at_end=at_end) or _differ_at(other, one, first, second, at_end=at_end)
        for pairs, at_end in ((_OPPOSITE_BEGINNINGS, False), (_OPPOSITE_ENDS, True))
        for first, second in pairs
    )


def _differ_at(one: str, other: str, first: str, second: str, *, at_end: bool) -> bool:
    if at_end:
        return one.endswith(first) and other == one[: len(one) - len(first)] + second
    return one.startswith(first) and other == second + one[len(first) :]
