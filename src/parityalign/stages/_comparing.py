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
from functools import lru_cache

from parityalign.stages._added_words import HALVES_OF_DAY, NEGATED, OTHER_WORDS, with_other_words
from parityalign.stages._answer_words import FILLERS, NEGATIONS, has_digit, plain, squeezed, tokens, words
from parityalign.stages._compared_amounts import compare_amounts, compare_ratios
from parityalign.stages._compared_times import compare_times
from parityalign.stages._near_words import (
    may_be_misread,
    may_be_of_one_stem,
    may_be_slip,
    misspelt,
    one_begins_the_other,
    one_letter_off,
    opposite,
    same_but_for_doubling,
    same_but_for_ing,
    singular,
)
from parityalign.stages._outcomes import Compared, Outcome, Question
from parityalign.stages._quantities import Quantity, quantity
from parityalign.stages._synonyms import is_another, is_region, stands_for_another
from parityalign.stages._wordnet import are_same, may_be_same

LONGEST = 600
"""Characters of an answer that are looked at. A model that rambles on is not called right for what is in the rest."""


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
    asked = Question(plain(question), frozenset(words(question)))
    if (found := _of_numbers(text, answer, asked)) is not None:
        return found
    if (found := _of_yes_and_no(text, answer, asked)) is not None:
        return found
    if one == other:
        return Compared(Outcome.RIGHT, "the same words")
    if squeezed(text) == squeezed(answer) or _joined(one) == _joined(other) or _same_without_asked(one, other, asked):
        return Compared(Outcome.RIGHT, "the same but for spaces")
    if _stand_for(text, answer) or _stand_for(answer, text):
        return Compared(Outcome.RIGHT, "the initials")
    found = _of_words(_aside(text, one), _aside(answer, other), asked)
    if found.why == OTHER_WORDS:
        return _of_things(text, answer, asked)
    if found.why == _OTHER_ORDER and _is_list(text, answer):
        return Compared(Outcome.RIGHT, "the same list")
    return found


def _of_numbers(text: str, answer: str, question: Question) -> Compared | None:
    """What answers come to that are numbers, ratios or dates; None if they are not."""
    found, texts = (words(text), words(answer)), (plain(text), plain(answer))
    amounts = quantity(_core(found[0])), quantity(_core(found[1]))
    if question.has(_OF_COUNTS) and any(amounts) and not all(amounts):
        amounts = _counted(found[0]), _counted(found[1])
    if amounts[0] and amounts[1]:
        return compare_amounts(amounts[0], amounts[1], texts, question)
    if (ratios := compare_ratios(amounts, texts, question)) is not None:
        return ratios
    if (times := compare_times(texts, [_core(each) for each in found])) is not None:
        return times
    years = [[word for word in each if _YEAR.fullmatch(word)] for each in found]
    if question.has(_OF_YEAR) and all(len(each) == 1 for each in years):
        same = years[0] == years[1]
        return Compared(Outcome.RIGHT, "the same year") if same else Compared(Outcome.WRONG, "other years")
    digits = [_DIGITS.fullmatch(each) and re.sub(r"\D", "", each) for each in texts]
    if digits[0] and digits[0] == digits[1] and len(digits[0]) >= _LONG_NUMBER:
        return Compared(Outcome.RIGHT, "the same digits")
    return None


def _counted(found: Sequence[str]) -> Quantity | None:
    """The number that an answer begins with, if only words come behind it: `5 apples`."""
    core = _core(found)
    whole = quantity(core)
    return whole or (quantity(core[:1]) if core and all(map(str.isalpha, core[1:])) else None)


_OF_COUNTS = re.compile(r"\bhow (?:many|much)\b|\b(?:number|population|amount|total)\b")
_DIGITS = re.compile(r"\+?[\d ()./-]+")
_OF_YEAR = re.compile(r"\b(?:what|which) year\b")
_YEAR = re.compile(r"1[5-9]\d\d|20\d\d")
_LONG_NUMBER = 7
"""Digits from which a number is one to call or to look up, however it is grouped."""

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


def _repeated(found: Sequence[str], question: Question) -> str:
    """The yes or no of an answer that repeats the question, as `It is a stop sign`."""
    said = {*found} - FILLERS - NEGATIONS
    if len(said) < 2 or not said <= question.words:
        return ""
    return "no" if NEGATIONS.intersection(found) else "yes"


def _of_yes_and_no(text: str, answer: str, question: Question) -> Compared | None:
    """What two answers come to of which one is yes or no, perhaps in other words; None if neither is."""
    found, polar = (words(text), words(answer)), _POLAR.match(question.text)
    spoken = [_yes_or_no(each) for each in (text, answer)]
    if polar and any(spoken):
        spoken = [said or _repeated(each, question) for said, each in zip(spoken, found, strict=True)]
    if not all(spoken):
        unclear = any(spoken) and polar and max(map(len, found)) > 1
        return Compared(Outcome.UNSURE, "yes or no in other words") if unclear else None
    if spoken[0] != spoken[1]:
        return Compared(Outcome.WRONG, "yes and no")
    if min(map(len, found)) == 1:
        return Compared(Outcome.RIGHT, f"both {spoken[0]}")
    return Compared(Outcome.UNSURE, f"both {spoken[0]}, in other words")


# Words


_STATES = frozenset(
    "al ak az ar ca co ct de fl ga hi id il in ia ks ky la me md ma mi mn ms mo mt ne nv nh nj nm ny nc nd oh ok or pa "
    "ri sc sd tn tx ut vt va wa wv wi wy dc usa uk".split()
)
_ASIDE = re.compile(r"\s*\([^()\d]{1,80}\)\s*$")
_STATE = re.compile(r",\s*([A-Za-z. ]{2,20})\s*$")
_IN_A_ROW = re.compile(r"\w, |\band\b|&")
_LISTED = re.compile(r"[,;/&]|\band\b", re.IGNORECASE)


def _core(found: Sequence[str]) -> list[str]:
    """Without words that go without saying; whether it is morning or evening does not."""
    return [word for word in found if word not in FILLERS or word in HALVES_OF_DAY]


def _joined(found: Sequence[str]) -> str:
    """Words without the spaces between letters: `hot dog` is `hotdog`, `1 2` is not `12`."""
    return re.sub(r"(?<!\d) | (?!\d)", "", " ".join(found))


def _same_without_asked(one: Sequence[str], other: Sequence[str], question: Question) -> bool:
    """Whether both are the same but for spaces and the words of the question, as `exit 24 b` and `24b`."""
    joined = [_joined([word for word in each if word not in question.words]) for each in (one, other)]
    return bool(joined[0]) and joined[0] == joined[1] and has_digit(joined[0])


def _stand_for(short: str, long: str) -> bool:
    """Whether an answer is the initials of the other, as `GE` and `General Electric`, `MIT` or `BofA`."""
    letters, named = tokens(short), tokens(long)
    if (
        len(letters) != 1
        or not letters[0].isalpha()
        or not 1 < len(named) <= 6
        or letters[0] in FILLERS
        or letters[0] in NEGATIONS
    ):
        return False
    initials = ["".join(word[0] for word in named if word not in left_out) for left_out in (_SMALL_WORDS, ())]
    return len(letters[0]) > 1 and letters[0] in (*initials, initials[1].replace("o", "of"))


_SMALL_WORDS = frozenset({"of", "and", "for", "&"})


def _aside(text: str, found: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The words of an answer, and those without what is only said in addition: `(green)`, `, CA`, a second sentence."""
    shorter = [_ASIDE.sub("", text)]
    if (state := _STATE.search(text)) and _is_said_of_city(text[: state.start()], state[1]):
        shorter.append(text[: state.start()])
    first, stop, rest = text.partition(". ")
    if stop and len(first) > 3 and not NEGATIONS.intersection(tokens(rest)) and "or" not in tokens(rest):
        shorter.append(first)
    return tuple(dict.fromkeys([found, *(words(each) for each in shorter if words(each))]))


def _is_said_of_city(city: str, state: str) -> bool:
    """Whether a name behind a comma is that of a state or country, and the one before it is not, as in a list."""
    return state.replace(".", "").lower() in _STATES or (is_region(words(state)) and not is_region(words(city)))


def _of_words(ones: Collection[tuple[str, ...]], others: Collection[tuple[str, ...]], asked: Question) -> Compared:
    """The best that any form of the one and any form of the other come to."""
    found = [_pair_of_words(one, other, asked) for one in ones for other in others]
    # A negation in what is left over decides against the whole.
    if any(each.why == NEGATED for each in found):
        return Compared(Outcome.WRONG, NEGATED)
    return min(found, key=lambda each: (_BEST_FIRST.index(each.outcome), each.why))


def _of_things(text: str, answer: str, question: Question) -> Compared:
    """What two names come to whose words are others."""
    wholes = [" ".join(singular(word) for word in tokens(each)) for each in (text, answer)]
    names = [[word for word in whole.split() if word not in FILLERS] or whole.split() for whole in wholes]
    if any(question.words.issuperset(name) for name in names) or any(has_digit(whole) for whole in wholes):
        return Compared(Outcome.WRONG, OTHER_WORDS)
    shared = {*names[0]} & {*names[1]}
    left = [[word for word in name if word not in shared] for name in names]
    if not question.has(_OF_NAMES) and (found := _by_wordnet(wholes, left, shared)):
        return found
    if question.has(_OF_PERSONS) and names[0][-1] == names[1][-1]:
        return Compared(Outcome.UNSURE, "the same last name")
    if any(may_be_of_one_stem(one, other) for one in left[0] for other in left[1]):
        return Compared(Outcome.UNSURE, "words of one stem")
    return Compared(Outcome.WRONG, OTHER_WORDS)


def _by_wordnet(wholes: Sequence[str], left: Sequence[Sequence[str]], shared: Collection[str]) -> Compared | None:
    """What WordNet says of two names, or of what is left of them without the words that both have."""
    if are_same(*wholes):
        if any(
            stands_for_another(tuple(whole.split())) for whole in wholes
        ):  # what it stands for here is another sense
            return Compared(Outcome.UNSURE, "perhaps the same thing")
        return Compared(Outcome.RIGHT, "another name of the same thing")
    rests = [" ".join(each) for each in left]
    if may_be_same(*wholes, whole=bool(shared)) or (all(rests) and may_be_same(*rests, whole=bool(shared))):
        return Compared(Outcome.UNSURE, "one may be a kind of the other")
    return None


_OF_PERSONS = re.compile(r"\bwho\b|\b(?:author|artist|player|person|director|photographer)\b")


_ING = re.compile(r"\w{3,}ing")
_BEST_FIRST = tuple(Outcome)
_OTHER_ORDER = "the same words in another order"


def _pair_of_words(one: tuple[str, ...], other: tuple[str, ...], asked: Question) -> Compared:
    listed = [tuple(word for word in each if word != "and") for each in (one, other)]
    if listed[0] == listed[1]:
        return Compared(Outcome.RIGHT, "the same words")
    if len(one) == len(other):
        found = _word_by_word(one, other, asked)
        if found is not None:
            return found
    if Counter(listed[0]) == Counter(listed[1]):
        if len(listed[0]) == 2 and any(_ING.fullmatch(word) for word in one) and not asked.has(_OF_NAMES):
            return Compared(Outcome.RIGHT, "the same words")
        return Compared(Outcome.UNSURE, _OTHER_ORDER)
    return with_other_words(one, other, asked)


_OF_NAMES = re.compile(r"\bwho\b|\b(?:name|brand|author|player|artist|photographer|company|maker)\b")


def _word_by_word(one: Sequence[str], other: Sequence[str], question: Question) -> Compared | None:
    """Right or unsure if all words are alike but for an ending or, in one of them, a letter; else None."""
    different = [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1] and not same_but_for_ing(*pair)]
    if not different:
        return Compared(Outcome.RIGHT, "the same words")
    if len(different) > 1 or opposite(*different[0]) or NEGATIONS.intersection(different[0]):
        return None
    if is_another(*((word,) for word in different[0])):
        return None
    if misspelt(*different[0]) or same_but_for_doubling(*different[0]):
        return Compared(Outcome.RIGHT, "the same but for the spelling of a long word")
    if one_begins_the_other(*different[0]):
        return Compared(Outcome.UNSURE, "one word begins with the other")
    named = question.has(_OF_NAMES) and may_be_misread(*different[0])
    slip = named or one_letter_off(*different[0]) or may_be_slip(*different[0])
    return Compared(Outcome.UNSURE, "one letter differs") if slip else None


def _is_list(text: str, answer: str) -> bool:
    """Whether the same words in another order list the same things; numbers are free to move only between commas."""
    one, other = words(text), words(answer)
    numbers = [[word for word in each if has_digit(word)] for each in (one, other)]
    free = numbers[0] == numbers[1] or all(map(_IN_A_ROW.search, (text, answer)))
    return free and _LISTED.search(f"{text}{answer}") is not None and FILLERS.isdisjoint(one)
