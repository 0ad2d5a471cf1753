"""What the words decide that only one of two answers has: they go without saying, deny, or name another thing.

Target        The name of the store is Target    right: the question says the rest
Starbucks     Starbucks Coffee                   right: the name of a cafe
Red Sox       Boston Red Sox                     right: a team
Nadal         Rafael Nadal                       right: who
galaxy        galaxy s7                          unsure
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from parityalign.stages._answer_words import FILLERS, NEGATIONS, has_digit, words
from parityalign.stages._number_words import number_of
from parityalign.stages._outcomes import Compared, Outcome, Question
from parityalign.stages._quantities import is_unit
from parityalign.stages._synonyms import is_another, may_be_same

NEGATED = "one denies the other"
OTHER_WORDS = "other words"

HALVES_OF_DAY = frozenset({"am", "pm"})
_PLACES = frozenset({"in", "on", "at", "of", "by", "from", "to"})
_EXCLUSIVE = tuple(
    frozenset(names.split())
    for names in (
        "st avenue boulevard road lane drive court square way row place",
        "com org net edu gov uk de fr ca",
        "from to",
        "north south east west",
    )
)
"""Of each of these a name has one at most, and another one makes another name."""
_DEGREES = frozenset("very strongly somewhat extremely slightly fairly mostly moderately completely highly".split())
_SCALE_ASKED = re.compile(r"\b(?:represent|common|share|percent|category|bar|line|legend|response|answer|option)")
_COPULAS = frozenset({"is", "are", "was", "were", "say", "read"})

_PROHIBITED = re.compile(r"\b(?:prohibit|forbid|ban|not allow)")
_TWO = re.compile(r"\b(?:which|what) (?:two|three|four)\b")
_OF_PERSONS = re.compile(
    r"\bwho\b|"
    r"\b(?:author|artist|player|person|director|photographer|singer|president|candidate|actor|last name|surname)\b"
)
_OF_BRANDS = re.compile(r"\b(?:brand|company|bank|maker|manufacturer|makes)\b")
_OF_MODELS = re.compile(r"\bmodel\b")
_OF_SPORTS = re.compile(r"\b(?:sport|game)\b")
_MATCHES = frozenset({"match", "game", "player", "sport"})
_FIRST = "cafe restaurant pizzeria bar hotel school university bank lake museum theater church"
"""Of these, what may stand before a name."""
_NUMBERED = (
    "room age gate platform bus number page channel route exit floor suite flight table lane seat size chapter "
    "volume level track car train team player apartment unit no"
)
_GENERAL = "food time area flavor flavored style cuisine season energy power region people kind type"
_OF_TEAMS = re.compile(r"\b(?:team|club)\b")
_OF_NAMES = re.compile(
    r"\b(?:name|named|called|brand|company|maker|manufacturer|makes|airline|store|shop|bookstore|restaurant|cafe|bar|bank|"
    r"publisher|publishes|hotel|where|city|bridge|church|park|river|museum|station|stop|destination|salon|"
    r"university|school|team|train|ship|drink|player)\b"
)
_OF_COUNTS = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|high|big|large|fast|heavy)\b|\b(?:number|value|percent|percentage|share|"
    r"population|amount|count|"
    r"total|sum|difference|average|median|price|cost|revenue|profit)\b"
)
_KINDS_OF_NAMES = (
    "coffee cafe restaurant pizzeria bar pub grill bakery hotel motel inn store pharmacy bank market supermarket "
    "station airport church cathedral bridge road st avenue park river lake museum theater school college "
    "university airline airway electronics motor group holding international express brand beer lager ale brewery "
    "brewing stout soda cola chip potato book press sporting goods food team club city salon hair spa gym cinema "
    "town bus train railroad "
    "water natural spring na sign logo laptop computer phone camera watch bottle shirt truck car motorcycle bike"
)
"""What stands beside a name and says of what it is one."""


class _Added(NamedTuple):
    """Two answers that share words."""

    short: tuple[str, ...]
    long: tuple[str, ...]
    more: tuple[frozenset[str], frozenset[str]]
    """The words that only the one, and only the other has."""
    said_anyway: frozenset[str]
    question: Question

    @property
    def added(self) -> list[frozenset[str]]:
        """The words of `more` that say something."""
        return [each - self.said_anyway for each in self.more]


def with_other_words(one: tuple[str, ...], other: tuple[str, ...], question: Question) -> Compared:
    """The outcome of two answers that are not the same words."""
    more = _more(one, other), _more(other, one)
    common = {*one} & {*other} - FILLERS
    if all(more) and (not common or all(HALVES_OF_DAY & each for each in more)):
        return _of_others(one, other, question)
    if any(NEGATIONS & each for each in more):
        if question.has(_PROHIBITED) and all(each <= {"no"} for each in more):
            return Compared(Outcome.RIGHT, "what is prohibited")
        return Compared(Outcome.WRONG, NEGATED)
    # Where the question offers the answer, its words are no mere repetition: "tea or milk?", "milk is better than tea".
    said_anyway = FILLERS if common & question.words else FILLERS | question.words
    short, long = sorted((one, other), key=len)
    case = _Added(short, long, more, said_anyway, question)
    if any(all(each & names for each in more) for names in _EXCLUSIVE) or is_another(*map(_named, (one, other))):
        return Compared(Outcome.WRONG, "another name")
    if all(case.added) or _has_another_word(one, other, case.said_anyway):
        return _of_others(one, other, question)
    if not any(case.added) and common:
        if all(_PLACES & each for each in more):
            return Compared(Outcome.UNSURE, "the same but for where")
        return Compared(Outcome.RIGHT, "the same but for words that go without saying")
    return _of_one_in_the_other(case)


def _of_one_in_the_other(case: _Added) -> Compared:
    added = frozenset().union(*case.added)
    if added <= _DEGREES and case.question.has(_SCALE_ASKED):
        return Compared(Outcome.WRONG, "another degree")
    if case.question.has(_TWO) and ("and" in added or len(case.short) == 1):
        return Compared(Outcome.WRONG, "not all of them")
    if not any(case.more[0]) or not any(case.more[1]):
        for rule, why in _RULES:
            if rule(case, added):
                return Compared(Outcome.RIGHT, why)
    return Compared(Outcome.UNSURE, f"one holds the other, and {' '.join(sorted(case.more[0] | case.more[1]))[:60]!r}")


@cache
def _known(names: str) -> frozenset[str]:
    return frozenset(words(names))


def _ends_a_sentence(case: _Added, added: frozenset[str]) -> bool:
    """`The panda eats bamboo`, where it is asked what it eats; `The cup on the left is red`."""
    before = case.long[: len(case.long) - len(case.short)]
    verbs = (_COPULAS if case.question.text else frozenset()) | case.question.words - FILLERS
    plain = not any(map(has_digit, before)) and not {"or", "if"} & {*before}
    return _at_end(case) and len(before) > 1 and before[-1] in verbs and plain


def _is_surname(case: _Added, added: frozenset[str]) -> bool:
    names = len(case.long) <= 4 and all(map(str.isalpha, case.long))
    return names and _at_end(case) and case.question.has(_OF_PERSONS)


def _is_team(case: _Added, added: frozenset[str]) -> bool:
    return _at_end(case) and case.question.has(_OF_TEAMS) and not any(map(has_digit, case.long))


def _is_name_with_its_kind(case: _Added, added: frozenset[str]) -> bool:
    kind_last = case.long[: len(case.short)] == case.short or added <= _known(_FIRST)
    return kind_last and added <= _known(_KINDS_OF_NAMES) and case.question.has(_OF_NAMES)


def _is_brand_that_goes_on(case: _Added, added: frozenset[str]) -> bool:
    """`Harley Davidson` for `Harley`: whose first word is the whole name to most people."""
    long_enough = sum(map(len, case.short)) >= 3 and not any(map(has_digit, added))
    return case.long[: len(case.short)] == case.short and long_enough and case.question.has(_OF_BRANDS)


def _is_model_with_its_brand(case: _Added, added: frozenset[str]) -> bool:
    """`Samsung Galaxy S7` for `Galaxy S7`."""
    coded = any(map(has_digit, case.short)) and not any(map(has_digit, added))
    return coded and _at_end(case) and case.question.has(_OF_MODELS)


def _is_match(case: _Added, added: frozenset[str]) -> bool:
    return added <= _MATCHES and case.question.has(_OF_SPORTS)


def _is_count_of_things(case: _Added, added: frozenset[str]) -> bool:
    """`Two: Norway and Chad`, `250,000 people`, where a number is asked for."""
    alone = len(case.short) == 1 and number_of(case.short[0]) is not None
    return alone and case.long[:1] == case.short and all(map(str.isalpha, added)) and case.question.has(_OF_COUNTS)


def _is_labelled(case: _Added, added: frozenset[str]) -> bool:
    """`Room 9`, `Ages 50-64`: what is numbered, before all of the other answer."""
    numbered = has_digit(case.short[0]) and bool(case.question.text)
    return numbered and len(added) == 1 and added <= _known(_NUMBERED) and _at_end(case)


def _is_with_general_word(case: _Added, added: frozenset[str]) -> bool:
    return added <= _known(_GENERAL) and case.long[: len(case.short)] == case.short


def _is_with_unit(case: _Added, added: frozenset[str]) -> bool:
    numbers = [number_of(word) for word in case.short]
    return all(map(is_unit, added)) and None not in numbers and case.long[: len(case.short)] == case.short


_RULES = (
    (_ends_a_sentence, "a sentence that ends with it"),
    (_is_surname, "a person by the last name"),
    (_is_team, "a team without its city"),
    (_is_name_with_its_kind, "a name with what it is the name of"),
    (_is_brand_that_goes_on, "a brand by its first name"),
    (_is_model_with_its_brand, "a model with its brand"),
    (_is_match, "a sport with what it is played as"),
    (_is_count_of_things, "a number with what it counts"),
    (_is_labelled, "a number with what is numbered"),
    (_is_with_general_word, "the same with a word that goes without saying"),
    (_is_with_unit, "the same numbers with a unit"),
)
"""When the longer answer says the same, though the question does not have its other words."""


def _has_another_word(one: Sequence[str], other: Sequence[str], said_anyway: frozenset[str]) -> bool:
    """Whether one word, not the first, is another one, as in `let it be` and `let it go`."""
    if len(one) != len(other):
        return False
    different = [pair for pair in zip(one[1:], other[1:], strict=True) if pair[0] != pair[1]]
    return one[0] == other[0] and len(different) == 1 and not said_anyway.issuperset(different[0])


def _of_others(one: Sequence[str], other: Sequence[str], question: Question) -> Compared:
    """Of answers that say different things: one may still be a kind of the other, or only zeros in front differ."""
    bare = [[word.lstrip("0") if word.isdecimal() else word for word in each] for each in (one, other)]
    if bare[0] == bare[1]:
        return Compared(Outcome.UNSURE, "only zeros in front differ")
    repeated = any(question.words.issuperset(_named(each)) for each in (one, other))
    if may_be_same(_named(one), _named(other)) and not repeated:
        return Compared(Outcome.UNSURE, "one may be a kind of the other")
    return Compared(Outcome.WRONG, OTHER_WORDS)


def _named(found: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in found if word not in FILLERS)


def _more(one: Sequence[str], other: Sequence[str]) -> frozenset[str]:
    return frozenset((Counter(one) - Counter(other)).elements())


def _at_end(case: _Added) -> bool:
    return case.long[-len(case.short) :] == case.short
