"""The relaxed accuracy of ChartQAPro: numbers within 5 %, texts by edit distance, years exactly, lists item by item."""

import ast
import re
import warnings
from collections.abc import Sequence
from itertools import zip_longest

from rapidfuzz.distance import Levenshtein

from parityalign.core import Metric, Score
from parityalign.metrics._references import require_references

_RELAXED_TOLERANCE = 0.05
_ANLS_THRESHOLD = 0.5
_LIST = re.compile(r"\[(.*)\]")
_WORD = re.compile(r"(?<!['\w])\w['\w]*")
"""A word that does not stand in quotes."""
_LONGEST_LIST = 10_000
"""Characters of a text that may be the text of a list. The original knows no limit, nor what a hostile text can do."""


def chartqapro_relaxed_accuracy(prediction: str, references: Sequence[str], exact: Sequence[bool] = ()) -> Score:
    """Relaxed correctness as vis-nlp/ChartQAPro 8911d1b scores it (`evaluate_predictions.py`).

    Full stops, then line ends, are taken off both ends of prediction and reference. What reads as a list is scored
    item by item, in order; missing and surplus items are 0, and the score is the mean. An exact item, a year, has to
    be equal but for case and outer whitespace. Of others, two numbers (percent signs are dropped, so "62%" is 62) may
    differ by 5 %, and a reference of 0 wants a 0; everything else is ANLS by the package anls 0.0.2, which gives 0 at
    exactly 0.5.

    Quirks that are kept: a list without quotation marks has each word quoted first, so "[New York, Rome]" holds
    "NewYork"; and though the paper wants an exact match for multiple choice and fact checking, the script computes that
    and then does not use it, so that they are scored as all others. Of several references the best one counts.

    Args:
        prediction: The prediction.
        references: One text, which may be a list in brackets; the last answer of a conversation.
        exact: Which items are years; shorter than the items: repeated. Empty: none.

    Raises:
        UserError: there is no reference.
    """
    require_references(prediction, references)
    return max((_relaxed(prediction, target, exact) for target in references), key=lambda score: score.value)


def _relaxed(prediction: str, target: str, exact: Sequence[bool]) -> Score:
    said = _items(_trimmed(prediction), _trimmed(prediction))
    wanted = _items(_with_quotes(_trimmed(target)), _trimmed(target))
    years = [*exact] * len(wanted) if len(exact) < len(wanted) else [*exact]
    values = [
        0.0 if p is None or t is None else _item(p, t, exactly=year)
        for p, t, year in zip_longest(said, wanted, years[: len(wanted)])
    ]
    why = (
        f"{values[0]:.3f} to {wanted[0]!r}" if len(values) == 1 else f"mean of {', '.join(f'{v:.3f}' for v in values)}"
    )
    return Score(sum(values) / len(values), said[0] if len(said) == 1 else str(said), why)


def _trimmed(text: str) -> str:
    return text.strip(".").strip("\n")


def _with_quotes(text: str) -> str:
    """The text of a list with its bare words in quotes; any other text as it is."""
    listed = _LIST.fullmatch(text.strip())
    found = _evaluated(f"[{_WORD.sub(_in_quotes, listed[1])}]") if listed else None
    return text if found is None else str(found)


def _in_quotes(word: re.Match[str]) -> str:
    return f"'{word[0]}'"


def _items(text: str, otherwise: str) -> list[str]:
    """The items of a text that is a list, else one other text."""
    found = _evaluated(text)
    return [str(item).strip(" '") for item in found] if isinstance(found, list) and found else [otherwise]


def _evaluated(text: str) -> object:
    """What the text says as a Python literal with a list in it; None if it says none."""
    if "[" not in text or len(text) > _LONGEST_LIST:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of backslashes
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _item(prediction: str, target: str, *, exactly: bool | None) -> float:
    if exactly:
        return float(prediction.strip().lower() == target.strip().lower())
    said, wanted = (text.strip().strip("%").strip() for text in (prediction, target))
    number, labelled = _number(said), _number(wanted)
    if number is None or labelled is None:
        return _anls(said.lower(), wanted.lower())
    if labelled == 0:
        return float(number == 0)
    return float(abs(number - labelled) / abs(labelled) <= _RELAXED_TOLERANCE)


def _number(text: str) -> float | None:
    try:
        return float(text.strip().strip("%"))
    except ValueError:
        return None


def _anls(one: str, other: str) -> float:
    one, other = (" ".join(text.strip().lower().split()) for text in (one, other))
    # The package takes the longer text's length in upper case, where "ß" counts two.
    longer = max(len(one.upper()), len(other.upper()))
    distance = Levenshtein.distance(one, other) / longer if longer else 0.0
    return 1 - distance if distance < _ANLS_THRESHOLD else 0.0


METRIC = Metric("chartqapro_relaxed_accuracy", chartqapro_relaxed_accuracy, with_exact=chartqapro_relaxed_accuracy)
