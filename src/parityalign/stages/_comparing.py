"""Compares two short answers to a question: are they the same, are they not, or can words alone not tell.

    "It is 1,234 kg."  "1234"              right
    "samsung galaxy"   "Samsung"           unsure: one holds the other, and more
    "Route 35"         "Route 36"          wrong

Which of the two is the model's makes no difference. What is right or wrong here says nothing of scores: these are the
metrics' matter.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from parityalign.stages._answer_words import FILLERS, NEGATIONS, has_digit, plain, squeezed, tokens, words
from parityalign.stages._near_words import misspelt, one_begins_the_other, one_letter_off, opposite, same_but_for_ing
from parityalign.stages._quantities import may_be_same_quantity, quantity, same_quantity

LONGEST = 600
"""Characters of an answer that are looked at. A model that rambles on is not called right for what is in the rest."""


class Outcome(StrEnum):
    """What comparing an answer with the pair's comes to."""

    RIGHT = "right"
    UNSURE = "unsure"
    WRONG = "wrong"


class Compared(NamedTuple):
    """The outcome and its reason in a few words."""

    outcome: Outcome
    why: str


def compare_answers(text: str, answer: str, question: str = "") -> Compared:
    """Whether two answers to a question say the same.

    Args:
        text: One answer.
        answer: The other.
        question: Its words may be repeated in either ("The name of the store is Target"); empty if unknown.
    """
    # Before anything is cut off: what is equal is right, however long.
    if _spelled_alike(text, answer):
        return Compared(Outcome.RIGHT, "the same") if text.strip() else Compared(Outcome.WRONG, "empty")
    cut = max(len(text), len(answer)) > LONGEST
    found = _compared(text[:LONGEST], answer[:LONGEST], question[:LONGEST])
    if cut and found.outcome == Outcome.RIGHT:
        return Compared(Outcome.UNSURE, f"longer than {LONGEST} characters")
    return found


def _spelled_alike(text: str, answer: str) -> bool:
    return " ".join(text.casefold().split()) == " ".join(answer.casefold().split())


@lru_cache(maxsize=1 << 14)
def _compared(text: str, answer: str, question: str) -> Compared:
    one, other = words(text), words(answer)
    if not one or not other:
        return Compared(Outcome.WRONG, "no words to compare")
    amounts = quantity(_core(one)), quantity(_core(other))
    if amounts[0] and amounts[1]:
        if same_quantity(amounts[0], amounts[1]):
            return Compared(Outcome.RIGHT, "the same number")
        if may_be_same_quantity(amounts[0], amounts[1]):
            return Compared(Outcome.UNSURE, "perhaps the same number, rounded")
        return Compared(Outcome.WRONG, "other numbers")
    spoken = _yes_or_no(text), _yes_or_no(answer)
    if all(spoken):
        return _of_yes_and_no(spoken, min(len(one), len(other)))
    if any(spoken) and _POLAR.match(plain(question)) and max(len(one), len(other)) > 1:
        return Compared(Outcome.UNSURE, "yes or no in other words")
    if one == other:
        return Compared(Outcome.RIGHT, "the same words")
    if squeezed(text) == squeezed(answer):
        return Compared(Outcome.RIGHT, "the same but for spaces")
    found = _of_words(_aside(text, one), _aside(answer, other), set(words(question)))
    if found.why != _OTHER_ORDER or not _LISTED.search(f"{text}{answer}") or not _same_order(one, other):
        return found
    return Compared(Outcome.RIGHT, "the same list")


# Yes and no


_YES_OR_NO = re.compile(
    r"(yes|yeah|yep|yup|no|nope)\b(?= ?$| ?[,.;:!-]| (?:it|there|he|she|they|this|that|these|those|i|we|you)\b)"
)
_POLAR = re.compile(
    r"(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should)\b(?!.* or )", re.IGNORECASE
)


def _yes_or_no(text: str) -> str:
    """The yes or no that an answer begins with; "no parking" begins with neither."""
    found = _YES_OR_NO.match(plain(text))
    return "" if found is None else "no" if found[1].startswith("no") else "yes"


def _of_yes_and_no(spoken: Sequence[str], shorter: int) -> Compared:
    if spoken[0] != spoken[1]:
        return Compared(Outcome.WRONG, "yes and no")
    if shorter == 1:
        return Compared(Outcome.RIGHT, f"both {spoken[0]}")
    return Compared(Outcome.UNSURE, f"both {spoken[0]}, in other words")


# Words


_STATES = frozenset(
    "al ak az ar ca co ct de fl ga hi id il in ia ks ky la me md ma mi mn ms mo mt ne nv nh nj nm ny nc nd oh ok or pa "
    "ri sc sd tn tx ut vt va wa wv wi wy dc usa uk".split()
)
_ASIDE = re.compile(r"\s*\([^()\d]{1,80}\)\s*$")
_STATE = re.compile(r",\s*([A-Za-z.]{2,5})\s*$")
_LISTED = re.compile(r"[,;/&]|\band\b", re.IGNORECASE)
_PLACES = frozenset({"in", "on", "at", "of", "by"})
_HALVES_OF_DAY = frozenset({"am", "pm"})


def _core(found: Sequence[str]) -> list[str]:
    """Without words that go without saying; whether it is morning or evening does not."""
    return [word for word in found if word not in FILLERS or word in _HALVES_OF_DAY]


def _aside(text: str, found: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The words of an answer, and those without what is only said in addition: `(green)`, `, CA`, a second sentence."""
    shorter = [_ASIDE.sub("", text)]
    if (state := _STATE.search(text)) and state[1].replace(".", "").lower() in _STATES:
        shorter.append(text[: state.start()])
    first, stop, rest = text.partition(". ")
    if stop and len(first) > 3 and not NEGATIONS.intersection(tokens(rest)) and "or" not in tokens(rest):
        shorter.append(first)
    return tuple(dict.fromkeys([found, *(words(each) for each in shorter if words(each))]))


def _of_words(
    ones: Collection[tuple[str, ...]], others: Collection[tuple[str, ...]], asked: Collection[str]
) -> Compared:
    """The best that any form of the one and any form of the other come to."""
    found = [_pair_of_words(one, other, asked) for one in ones for other in others]
    # A negation in what is left over decides against the whole.
    if any(each.why == _NEGATED for each in found):
        return Compared(Outcome.WRONG, _NEGATED)
    return min(found, key=lambda each: (_BEST_FIRST.index(each.outcome), each.why))


_BEST_FIRST = tuple(Outcome)
_NEGATED = "one denies the other"
_OTHER_ORDER = "the same words in another order"


def _pair_of_words(one: tuple[str, ...], other: tuple[str, ...], asked: Collection[str]) -> Compared:
    listed = [tuple(word for word in each if word != "and") for each in (one, other)]
    if listed[0] == listed[1]:
        return Compared(Outcome.RIGHT, "the same words")
    if len(one) == len(other):
        found = _word_by_word(one, other)
        if found is not None:
            return found
    if Counter(listed[0]) == Counter(listed[1]):
        return Compared(Outcome.UNSURE, _OTHER_ORDER)
    return _with_other_words(one, other, asked)


def _word_by_word(one: Sequence[str], other: Sequence[str]) -> Compared | None:
    """Right or unsure if all words are alike but for an ending or, in one of them, a letter; else None."""
    different = [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1] and not same_but_for_ing(*pair)]
    if not different:
        return Compared(Outcome.RIGHT, "the same words")
    if len(different) > 1 or opposite(*different[0]) or NEGATIONS.intersection(different[0]):
        return None
    if misspelt(*different[0]):
        return Compared(Outcome.RIGHT, "the same but for the spelling of a long word")
    if one_begins_the_other(*different[0]):
        return Compared(Outcome.UNSURE, "one word begins with the other")
    return Compared(Outcome.UNSURE, "one letter differs") if one_letter_off(*different[0]) else None


def _same_order(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether all that is not free to move in a list is in the same order: numbers, and nothing but words to list."""
    numbers = [[word for word in each if has_digit(word)] for each in (one, other)]
    return numbers[0] == numbers[1] and FILLERS.isdisjoint(one)


def _zeros(one: Sequence[str], other: Sequence[str]) -> Compared:
    bare = [[word.lstrip("0") if word.isdecimal() else word for word in each] for each in (one, other)]
    if bare[0] == bare[1]:
        return Compared(Outcome.UNSURE, "only zeros in front differ")
    return Compared(Outcome.WRONG, "other words")


def _with_other_words(one: Sequence[str], other: Sequence[str], asked: Collection[str]) -> Compared:
    """What the words that only one of the answers has decide: they may go without saying, deny, or say more."""
    more = [set((Counter(a) - Counter(b)).elements()) for a, b in ((one, other), (other, one))]
    common = {*one} & {*other} - FILLERS
    if all(more) and (not common or all(_HALVES_OF_DAY & each for each in more)):
        return _zeros(one, other)
    if any(NEGATIONS & each for each in more):
        return Compared(Outcome.WRONG, _NEGATED)
    # Where the question offers the answer, its words are no mere repetition: "tea or milk?", "milk is better than tea".
    said_anyway = FILLERS if common & {*asked} else FILLERS.union(asked)
    added = [each - said_anyway for each in more]
    if all(added):
        return _zeros(one, other)
    if any(added) or not common:
        return Compared(Outcome.UNSURE, f"one holds the other, and {' '.join(sorted(more[0] | more[1]))[:60]!r}")
    if all(_PLACES & each for each in more):
        return Compared(Outcome.UNSURE, "the same but for where")
    return Compared(Outcome.RIGHT, "the same but for words that go without saying")
