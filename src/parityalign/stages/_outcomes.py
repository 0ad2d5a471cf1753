"""What comparing two answers comes to, and the question as far as it helps to compare them."""

import re
from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """What comparing an answer with the pair's comes to."""

    RIGHT = "right"
    UNSURE = "unsure"
    WRONG = "wrong"


class Compared(NamedTuple):
    """The outcome and its reason in a few words."""

    outcome: Outcome
    why: str


class Question(NamedTuple):
    """What both answers are answers to."""

    text: str
    """Lower case, single spaces; empty if unknown."""
    words: frozenset[str]
    """In the singular, and one of several synonyms."""

    def has(self, pattern: re.Pattern[str]) -> bool:
        """Whether a pattern is found in it."""
        return pattern.search(self.text) is not None
