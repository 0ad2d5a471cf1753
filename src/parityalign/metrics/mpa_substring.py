"""The substring rule of the MPA paper: far more lenient than official metrics, never shown in one column with them."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from parityalign.core import Metric, Score
from parityalign.metrics._references import require_references

_NOT_A_WORD = re.compile(r"\W+")


def mpa_substring(prediction: str | None, references: Sequence[str]) -> Score:
    """The MPA paper's metric: the squeezed prediction contains the squeezed ground truth (vl2g/MPA 4e69e39).

    The ground truth is the most frequent reference; of equally frequent ones, the first. Beware: "2015"
    contains "5", "nothing" contains "no", and everything contains a ground truth that is empty when squeezed.
    Long answers can only gain.

    Raises:
        UserError: there is no reference.
    """
    require_references(prediction, references)
    [(truth, _)] = Counter(references).most_common(1)
    found = paper_contains(truth, prediction)
    verb = "contains" if found else "lacks"
    return Score(float(found), _squeeze(prediction), f"{verb} {_squeeze(truth)!r}")


def paper_contains(key: str | None, reply: str | None) -> bool:
    """Whether the `paper` rule finds the key in the reply: a substring, after both are squeezed.

    Squeezed means lower case with only letters, digits and underscores left. None counts as an empty text,
    and an empty key is found everywhere (`preprocess` in vl2g/MPA 4e69e39, `scripts/utils/utils.py`).
    """
    return _squeeze(key) in _squeeze(reply)


@lru_cache(maxsize=1 << 16)
def _squeeze(text: str | None) -> str:
    return "" if text is None else _NOT_A_WORD.sub("", text.lower())


METRIC = Metric("mpa_substring", mpa_substring)
