"""The judge on any texts: every rule gives a verdict; by words an answer agrees with itself, and both ways round."""

from hypothesis import strategies as st

from fuzz_targets._drawn import of_pieces
from parityalign.config import IdentifySettings
from parityalign.core import VerdictKind
from parityalign.stages.judging import Given, judge_of
from parityalign.tasks import load_task

_PIECES = [
    *(
        "tea",
        "Tea",
        "the",
        "a cup of ",
        "yes",
        "no",
        "not",
        "none",
        "left",
        "bicycle",
        "bikes",
        "Napa Valley",
        "St.",
        "Dr",
    ),
    *(
        "two",
        "2",
        "1,234",
        "1.234",
        "-7",
        "½",
        "62",
        "%",
        "$",
        "€5",
        " million",
        "12:30",
        "2019",
        "19th",
        " km",
        "kg",
        "1e999",
    ),
    *("AB-123", "°", "'s", "'", '"', "(", ")", ".", ",", ";", ":", "-", "/", "&", " and ", " or ", " ", "\n", "\t"),
    *("ß", "İ", "²", "٣", "１", "é", "e\u0301", "\u200b", "\u202e", "\0", "日本", "שלום"),
]
_TEXT = of_pieces(_PIECES, most=6) | st.text(max_size=30)
_TASK = load_task("textvqa")
_BY_RULE = {
    rule: judge_of(_TASK, IdentifySettings(rule=rule, ask_teacher="all")) for rule in ("judge", "metric", "paper")
}

INPUTS = st.tuples(_TEXT, _TEXT, st.just("") | _TEXT)


def check(given: tuple[str, str, str]) -> None:
    """Judges both models' answers by every rule."""
    answer, text, question = given
    for judge in _BY_RULE.values():
        verdict = judge.verdict("p", answer, Given(text, ""), Given(answer, ""), question)
        if not verdict.reason:
            raise AssertionError(f"no reason: {verdict}")
    words = _BY_RULE["judge"]
    same = words.verdict("p", answer, Given(answer, ""), Given(answer, ""), question).verdict
    if same not in (VerdictKind.BOTH, VerdictKind.DROPPED, VerdictKind.UNSURE):
        raise AssertionError(f"{answer!r} is not itself: {same}")
    if words.outcome(text, answer, question) != words.outcome(answer, text, question):
        raise AssertionError(f"{text!r} and {answer!r} depend on their order")
