"""How varied questions are: by their text, by the words that they begin with, by the type of their answers."""

from enum import StrEnum

from parityalign.stages._answer_words import tokens
from parityalign.stages._quantities import quantity

_OPENING_WORDS = 2


class AnswerType(StrEnum):
    """What an answer is."""

    YES_NO = "yes or no"
    NUMBER = "number"
    """With a unit or without, in digits or in words."""
    OTHER = "other"


def answer_type(answer: str) -> AnswerType:
    """The type of an answer."""
    found = tokens(answer)
    if found in (("yes",), ("no",)):
        return AnswerType.YES_NO
    return AnswerType.NUMBER if quantity(found) else AnswerType.OTHER


def opening(question: str) -> str:
    """The first two words of a question, in lower case: `what is`, `how many`."""
    return " ".join(same_question(question).split()[:_OPENING_WORDS])


def same_question(question: str) -> str:
    """A question as it is compared with others: lower case, single spaces, no mark at its end."""
    return " ".join(question.casefold().split()).rstrip("?.! ")
