"""How VQA accuracy normalises an answer before comparing it: the official rules and EvalAI's, quirks included.

    "Two dogs, barking."      -> official "2 dogs barking"        EvalAI "2 dogs barking"
    "1,000-2"                 -> official "10002"                 EvalAI "1000 2"
    "mcdonald's"              -> official "mcdonald's"            EvalAI "mcdonald 's"

Sources: `vqaEval.py` of GT-Vision-Lab/VQA (a013f00), and `EvalAIAnswerProcessor` of facebookresearch/mmf
(b0ffc7fb), which lmms-eval and LLaVA carry unchanged. Oddities below are theirs, kept so
that scores are comparable.
"""

import re
from functools import lru_cache

_CACHED_TEXTS = 1 << 16

_MARKS = frozenset(';/[]"{}()=+\\_-><@`,?!')
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")

# The original's look-behind is mistyped as `(?!<=\d)`, which is always true: "5." loses its period.
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")
# The original passes the flag re.UNICODE (32) where `sub` expects the number of replacements.
_PERIODS_DELETED_AT_MOST = 32

_NUMBER_WORDS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_ARTICLES = frozenset({"a", "an", "the"})

_SPELLINGS = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
    how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock
    oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
    something'd something'll that's there'd there're there's they'd they'll they're they've 'twas wasn't
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's
    who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've couldn't've
    hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
    something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've y'all'll y'all'd've
    'ow's'at
"""
# A token that lacks exactly one apostrophe of a spelling gets it back; "couldntve" lacks two and stays.
# Of the original's 120 entries, two map to themselves (let's, she's) and four hold a capital I, which text in
# lower case never has: they are left out. "somebody'd" is reversed there too.
_CONTRACTIONS = {
    spelling[:at] + spelling[at + 1 :]: spelling
    for spelling in _SPELLINGS.split()
    for at, sign in enumerate(spelling)
    if sign == "'"
} | {"somebody'd": "somebodyd"}


def on_one_line(text: str) -> str:
    """The text with newlines and tabs as spaces, outer whitespace stripped; inner carriage returns stay."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=_CACHED_TEXTS)
def normalise_official(text: str) -> str:
    """The text that the official script compares if the references differ; `text` comes from `on_one_line`."""
    return _map_words(_strip_periods(_strip_marks(text)))


@lru_cache(maxsize=_CACHED_TEXTS)
def normalise_evalai(text: str) -> str:
    """The text that EvalAI's processor compares, from the raw text."""
    # Commas are removed first, so the digit-comma-digit rule of `_strip_marks` never applies here.
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalise_official(on_one_line(text))


def _strip_marks(text: str) -> str:
    """Deletes each mark that touches a space anywhere and replaces the others by spaces; one "1,000" deletes all."""
    # Every decision depends on the original text only, so the marks can be replaced together in any order.
    marks = _MARKS.intersection(text)
    if not marks:
        return text
    delete_all = _DIGIT_COMMA_DIGIT.search(text) is not None
    return text.translate(
        {ord(mark): "" if delete_all or f"{mark} " in text or f" {mark}" in text else " " for mark in marks}
    )


def _strip_periods(text: str) -> str:
    return _PERIOD_BEFORE_NO_DIGIT.sub("", text, count=_PERIODS_DELETED_AT_MOST)


def _map_words(text: str) -> str:
    """Lower case, number words as digits, no articles, contractions with their apostrophe, single spaces."""
    words = (_NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
