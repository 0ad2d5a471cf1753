"""What a text says without what models put around it: thoughts, frames, bold marks, quotes, the final full stop.

    normalise_answer("<think>A pole?</think> **<answer>post</answer>.**")  ->  "post"

No text makes these functions raise, and their time grows with its length only.
"""

import re
from collections.abc import Iterator

from parityalign.core import without_thoughts

MAX_UNWRAPPED_CHARACTERS = 1000
"""A longer text is no answer: it is put on one line and otherwise left alone."""


def normalise_answer(text: str) -> str:
    """A short answer on one line, without thoughts, bold marks, frames, surrounding quotes and the final full stop.

    The dots of an abbreviation such as `U.S.` stay. The result may be empty; it is, if a thought has no end.
    """
    text = " ".join((without_thoughts(text) or "").split())
    while len(text) <= MAX_UNWRAPPED_CHARACTERS:
        stripped = _without_full_stop(_without_frames(without_wrapping(on_one_line(without_thoughts(text) or ""))))
        if stripped == text:
            break
        text = stripped
    return text


def without_box_tokens(text: str) -> str:
    """The text without the tokens in which GLM-V frames its answers."""
    return _BOX_TOKEN.sub("", text)


def without_bold(text: str) -> str:
    """The text without the marks of bold print."""
    return _BOLD.sub("", text)


def on_one_line(text: str) -> str:
    """The text with single spaces and without marks of bold print or of emphasis around it."""
    return " ".join(without_bold(text).split()).strip("* ")


def without_wrapping(text: str) -> str:
    """Strips pairs of marks that enclose the whole text, such as quotes; marks that are no pair stay."""
    while 2 <= len(text) <= MAX_UNWRAPPED_CHARACTERS and text[0] + text[-1] in _WRAPPINGS and _is_pair(text):
        text = text[1:-1].strip()
    return text


_BOX_TOKEN = re.compile(r"<\|(?:begin|end)_of_box\|>")
_BOLD = re.compile(r"\*\*|__")
_WRAPPINGS = ('""', "''", "``", "“”", "„“", "‘’", "«»", "<>", "[]", "{}")
_APOSTROPHES = "'’"
_AFTER_QUOTE = " ,.;:!?)]"
_DOTTED_ABBREVIATION = re.compile(r"(?:^|\W)[^\W\d_](?:\.[^\W\d_])+\.$")
_ANSWER_TAG = re.compile(r"^<answer>|</answer>$", re.IGNORECASE)
_TAGGED = re.compile(r"<(\w{1,20})>((?:(?!</?\1>).)*)</\1>")
_BOXED = re.compile(r"\\(?:boxed|fbox) ?\{((?:[^{}]|\{[^{}]*\})*)\}")
_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\]|\\(?:text|textbf|mathrm|mathbf) ?\{([^{}]*)\}")
_ESCAPED = re.compile(r"\\([%$&#_])")


def _without_frames(text: str) -> str:
    """Takes off the tags of an answer, LaTeX around it, and all that stands around its only LaTeX box."""
    text = _ANSWER_TAG.sub("", without_box_tokens(text)).strip()
    boxes = _BOXED.findall(text)
    if len(boxes) == 1:
        return str(boxes[0]).strip()
    tagged, formula = _TAGGED.fullmatch(text), _FORMULA.fullmatch(text)
    if tagged:
        return tagged[2].strip()
    return _ESCAPED.sub(r"\1", formula[formula.lastindex or 0] if formula else text).strip()


def _is_pair(text: str) -> bool:
    """Whether the first mark of a text belongs to its last, unlike in `"Stop" and "Go"`."""
    depth = 0
    for step in _steps(text[1:-1], text[0], text[-1]):
        if step > 0 and depth < 0:
            return False
        depth += step
    return True


def _steps(inner: str, opening: str, closing: str) -> Iterator[int]:
    """1 for each mark that opens a quotation within, -1 for each that closes one; an apostrophe does neither."""
    for at, mark in enumerate(inner):
        if mark not in (opening, closing):
            continue
        before, after = inner[at - 1 : at] if at else "", inner[at + 1 : at + 2]
        if mark in _APOSTROPHES and before.isalnum() and after.isalnum():
            continue
        opens = not before.isalnum() and after not in _AFTER_QUOTE if opening == closing else mark == opening
        yield 1 if opens else -1


def _without_full_stop(text: str) -> str:
    return text if _DOTTED_ABBREVIATION.search(text) else text.rstrip(" .")
