"""The forms in which models write a question and its answer: labels in running text, and JSON or nearly that.

Both functions give the texts as they stand in the reply; each is empty if absent. Their time grows with the reply's
length only.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from parityalign.stages._answer_text import without_bold


def from_json(reply: str) -> tuple[str, str] | None:
    """Question and answer of the first object that has either, or of what nearly is one; None if there is none.

    The keys may be numbered, and the object may lie in others: `{"questions": [{"question": ...}]}`.
    """
    start = reply.find("{")
    if start < 0:
        return None
    try:
        found, _ = _DECODER.raw_decode(reply, start)
    except (ValueError, RecursionError):
        return _from_broken_json(reply)
    return next(filter(None, map(_fields_of, _objects_in(found))), None) or _from_broken_json(reply)


def from_labels(reply: str) -> tuple[str, str]:
    """The texts after the first `Question:` and the `Answer:` that belongs to it.

    `Q:` and `A:`, headings and tags are labels as well. Without a label of the question, the line before the answer is
    one if it ends in a question mark.
    """
    text = "\n".join(_as_labels(without_bold(_ECHOED_FORM.sub("", reply))).splitlines())
    labels = list(_labels(text))
    questions = [label for label in labels if label.asks]
    asked = next((label for label in questions if label.stands_out), questions[0] if questions else None)
    if not asked:
        return _unlabelled(text, labels)
    later = [label for label in labels if label.start >= asked.end]
    end = next((label.start for label in later if label.asks and label.stands_out), len(text))
    answered = _answer_to(asked, later, end)
    if not answered:
        return text[asked.end : end], ""
    following = next((label.start for label in later if label.asks and label.start >= answered.end), None)
    answer = text[answered.end : following]
    if text[answered.start - 1] == "(":
        answer = answer.partition(")")[0]
    if following:
        answer = LIST_MARK_AT_END.sub("", answer.rstrip())
    return _below(text[asked.end : min(answered.start, end)]), _answer_in(answer)


# Numbers keep their spelling: a float would lose the 0 of 1.50.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
_KEY = re.compile(r"(?:(question|q)|answer|ans|a)[ _#]*(\d{0,3})", re.IGNORECASE)
_BROKEN_JSON = re.compile(
    r"""["']question[ _#]{0,2}\d{0,3}["']\s{0,9}:\s{0,9}(?P<mark>["'])(?P<question>.{1,600}?)(?P=mark)\s{0,9},"""
    r"""\s{0,99}["']answer[ _#]{0,2}\d{0,3}["']\s{0,9}:\s{0,9}"""
    r"""(?:(?P<quote>["'])(?P<answer>.{0,300}?)(?P=quote)|(?P<bare>[^\s"',}\]]{1,100}))\s{0,99}[,}\]]""",
    re.IGNORECASE | re.DOTALL,
)


def _objects_in(found: object) -> Iterator[Mapping[str, object]]:
    """All objects within, in the order of the text."""
    waiting = [found]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += reversed(each.values())
        elif isinstance(each, list):
            waiting += reversed(each)


def _fields_of(found: Mapping[str, object]) -> tuple[str, str] | None:
    """The first question and the answer of the same number, or the only answer; None if the object has neither."""
    questions: dict[str, str] = {}
    answers: dict[str, str] = {}
    for key, value in found.items():
        named = _KEY.fullmatch(key.strip())
        if named and not isinstance(value, dict | list):
            (questions if named[1] else answers).setdefault(named[2], value if isinstance(value, str) else "")
    if not questions and not answers:
        return None
    number, question = next(iter(questions.items()), ("", ""))
    only = next(iter(answers.values())) if len(answers) == 1 else ""
    return question, answers.get(number, only)


def _from_broken_json(reply: str) -> tuple[str, str] | None:
    """The same for what misses JSON by a comma, by other quotes or by quotes within quotes."""
    found = _BROKEN_JSON.search(reply)
    return (_unescaped(found["question"]), _unescaped(found["answer"] or found["bare"] or "")) if found else None


def _unescaped(text: str) -> str:
    try:
        return str(_DECODER.decode(f'"{text}"'))
    except ValueError:
        return text.replace('\\"', '"')


class _Label(NamedTuple):
    """A label in running text, such as `Question 1:`."""

    asks: bool
    letter: bool
    """Whether it is `Q` or `A`."""
    number: str
    """Empty if it has none."""
    stands_out: bool
    """Whether it begins a line, or has a capital and follows a mark, unlike `What is the answer: yes or no?`."""
    start: int
    end: int


_TAGS = (
    (re.compile(r"(?:\bquestion ?[:：]\s?)?<question>", re.IGNORECASE), "\nQuestion: "),
    (re.compile(r"(?:\banswer ?[:：]\s?)?<answer>", re.IGNORECASE), "\nAnswer: "),
    (re.compile(r"</(?:question|answer)>", re.IGNORECASE), "\n"),
)
_ECHOED_FORM = re.compile(
    r"question ?: ?[<\[({]your question[>\])}]\s?answer ?: ?[<\[({]your answer[>\])}]", re.IGNORECASE
)
_LABEL = re.compile(
    r"(?:\b(?:(?:the )?(?:correct|final|short|expected|sample|example|suggested|generated) )?"
    r"(?:(?P<asks>question)|answer|ans)|\b(?-i:(?P<Q>Q)|(?P<A>A)))"
    r"(?: ?(?:#|no\. ?)? ?(?P<number>\d{1,3}))?\*? ?(?:(?P<colon>[:：])|[ \t]{0,9}$|(?P<point>[.)] |[-–—] ))",
    re.IGNORECASE | re.MULTILINE,
)
_BEFORE_LABEL = 24
_MARKS_ONLY = re.compile(r"[\s>#*•\-–\d.)(|]*")
_LIST_MARK = re.compile(r"\A\s*(?:[-*•#>]+|\d{1,3}[.)])\s+")
LIST_MARK_AT_END = re.compile(r"(?:^|\s)(?:\d{1,3}[.)]|[-*#•]+)$")
_AFTERTHOUGHT = re.compile(r"(?<=[\s(*\[])(?:explanation|reason(?:ing)?|rationale|justification|note)s? ?[:：]", re.I)


def _as_labels(text: str) -> str:
    for tag, label in _TAGS:
        text = tag.sub(label, text)
    return text


def _labels(text: str) -> Iterator[_Label]:
    for found in _LABEL.finditer(text):
        letter, number = bool(found["Q"] or found["A"]), found["number"] or ""
        before = text[max(0, found.start() - _BEFORE_LABEL) : found.start()]
        line = before.rpartition("\n")[2]
        begins = (line != before or len(before) == found.start()) and _MARKS_ONLY.fullmatch(line) is not None
        stands_out = begins or (found[0][0].isupper() and not before.rstrip(" ")[-1:].isalnum())
        heads = begins and bool(number if found["point"] else not letter)
        if heads or (found["colon"] and (stands_out or not letter)):
            yield _Label(bool(found["asks"] or found["Q"]), letter, number, stands_out, found.start(), found.end())


def _answer_to(asked: _Label, later: Sequence[_Label], end: int) -> _Label | None:
    """The label of the answer to a question: before the next question, or with its number."""
    answers = [label for label in later if not label.asks and (asked.letter or not label.letter)]
    own = [each for each in answers if each.start < end and each.number in ("", asked.number or each.number)]
    following = next((label.start for label in later if label.asks), end)
    plain = next((each for each in own if each.stands_out and each.start < following), None)
    if plain or own:
        return plain or own[0]
    return next((each for each in answers if each.number == asked.number), None) if asked.number else None


def _unlabelled(text: str, labels: Sequence[_Label]) -> tuple[str, str]:
    """The line before the first answer, if it asks, and that answer."""
    answered = next((label for label in labels if label.stands_out), None)
    if not answered:
        return "", ""
    before = LIST_MARK_AT_END.sub("", text[: answered.start].rstrip()).rstrip()
    line = _LIST_MARK.sub("", before.rpartition("\n")[2])
    return line if line.rstrip("\"'*_ ").endswith("?") else "", _answer_in(text[answered.end :])


def _below(text: str) -> str:
    """What follows a label, without its list mark if it stands below; on the label's own line a number is its own."""
    return text if text.partition("\n")[0].strip() else _LIST_MARK.sub("", text)


def _answer_in(text: str) -> str:
    """The first line that is not empty, up to the reason that a model adds to it."""
    line = next((line for line in _below(text).splitlines() if line.strip()), "")
    added = _AFTERTHOUGHT.search(line)
    if added and any(map(str.isalnum, line[: added.start()])):
        line = line[: added.start()].rstrip(" (*[-–—;,|")
    return line
