"""Texts that stand where an answer should and are none: a model that declines, cannot tell, or repeats the form.

They are told by their wording, in English; a sign that reads "Sorry, we are closed" is an answer.
"""

import re


def declines(text: str) -> bool:
    """Whether the text says that the model will not do what it was asked for."""
    return _DECLINES.match(_plain(text)) is not None


def cannot_tell(text: str) -> bool:
    """Whether the text says that the image does not show the answer."""
    return _CANNOT_TELL.match(_plain(text)) is not None


def is_echo(text: str, what: str) -> bool:
    """Whether the text is a place holder for the question or the answer, such as `[your answer]`.

    Args:
        text: On one line.
        what: `question` or `answer`.
    """
    bare = text.strip("<>[](){} .?").casefold()
    return re.fullmatch(rf"(?:(?:insert|write) )?your {what}(?: here)?|(?:insert )?{what} here", bare) is not None


_CHARACTERS = 300
"""What is none of these within so many characters is none of these."""

_DECLINES = re.compile(
    r"(?:(?:(?:i(?:'m| am) )?(?:(?:very|so|really) )?(?:sorry|afraid)|(?:i |my )?apolog\w+|unfortunately)\b"
    r".{0,60}?\bi(?:'m| am)? (?:can't|cannot|can not|won't|will not|unable|not able|not allowed|must decline))\b"
    r"|i (?:can't|cannot|can not|won't|will not|am unable to|am not able to) "
    r"(?:help|assist|identify|provide|answer|comply|fulfil|fulfill|recogni[sz]e|discuss|share|process|generate|create)\b"
    r"|i'm (?:unable|not able|not allowed) to\b|i (?:must|have to) decline\b|as an ai\b"
)

_SUBJECT = r"(?:(?:it|this|that|which|the (?:\w+ ){1,5}?) ?)?(?:'s |is |are |was )?"
_SEEN = "determined|read|seen|identified|answered|told|known|made out|discerned|inferred|established|verified"
_SEE = "determine|tell|say|see|read|identify|know|make out|discern|answer"
_THERE = "visible|legible|readable|discernible|identifiable|specified|mentioned|stated|shown|given|provided|indicated"
_CANNOT_TELL = re.compile(
    rf"{_SUBJECT}not (?:\w+ly )?(?:{_THERE}|available|applicable|known|clear|sure|enough (?:information|detail))\b"
    rf"|{_SUBJECT}(?:can't|cannot|can not|could not|couldn't) be (?:\w+ly )?(?:{_SEEN})\b"
    rf"|{_SUBJECT}(?:unable|impossible|not possible|hard|difficult|too \w+) to (?:{_SEE})\b"
    rf"|(?:i )?(?:can't|cannot|can not|could not|couldn't) (?:\w+ly )?(?:{_SEE})\b|(?:i )?(?:don't|do not) know\b"
    rf"|{_SUBJECT}(?:unknown|unclear|illegible|unreadable|undetermined|indeterminate|unidentifiable|unspecified|"
    r"unanswerable|n/a|(?:insufficient|no) information)(?:[,;.(]| (?:from|in|on|to|due|based|without|because|as)\b|$)"
    r"|no (?:\w+ ){0,2}?(?:text|answer|information|name|number|date|brand|label|logo|writing|title)"
    rf" (?:is |are )?(?:\w+ly )?(?:{_THERE}|available|present)\b|none (?:is |are )?(?:{_THERE})\b"
)


def _plain(text: str) -> str:
    return " ".join(text[:_CHARACTERS].casefold().replace("’", "'").split())
