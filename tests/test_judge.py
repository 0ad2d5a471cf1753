"""The judge of verdicts: what counts as the same answer, what as another, and what words alone cannot tell."""

import json
import time
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from parityalign.config.schema import IdentifySettings
from parityalign.demo.worlds import WORLDS
from parityalign.stages._comparing import compare_answers
from parityalign.stages._number_words import number_text
from parityalign.stages._outcomes import Outcome
from parityalign.stages.judging import Given, judge_of
from parityalign.tasks import load_task

RIGHT, UNSURE, WRONG = Outcome.RIGHT, Outcome.UNSURE, Outcome.WRONG


def golden():
    lines = (Path(__file__).parent / "golden" / "judge.txt").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("# "):
            outcome, one, other, *question = (part.strip() for part in line.split("|"))
            yield pytest.param(outcome, one, other, "".join(question), id=f"line {number}")


@pytest.mark.parametrize(("outcome", "one", "other", "question"), list(golden()))
def test_the_judge_decides_as_the_golden_file_says_both_ways_round(outcome, one, other, question):
    assert [compare_answers(*pair, question).outcome for pair in ((one, other), (other, one))] == [outcome, outcome]


def test_the_golden_file_holds_hundreds_of_each_outcome():
    counts = {outcome: sum(case.values[0] == outcome for case in golden()) for outcome in Outcome}
    assert counts[RIGHT] >= 150 and counts[WRONG] >= 100 and counts[UNSURE] >= 40


def judgements(split):
    lines = (Path(__file__).parent / "golden" / "judgements.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_judge_says_what_a_careful_person_says(split):
    rows = judgements(split)
    said = [(compare_answers(row["answer"], row["reference"], row["question"]).outcome, row["human"]) for row in rows]
    decided = [outcome == human for outcome, human in said if outcome != UNSURE]
    assert len(decided) >= 0.85 * len(rows)
    assert sum(decided) >= 0.95 * len(decided)


def test_hundreds_of_judgements_had_no_part_in_mending_the_judge():
    rows = judgements("test")
    counts = Counter((row["style"], row["human"]) for row in rows)
    assert len(rows) >= 300 and len({(row["question"], row["reference"], row["answer"]) for row in rows}) == len(rows)
    assert all(counts[style, "right"] >= 30 and counts[style, "wrong"] >= 25 for style, _ in counts)


# Answers as models give them: words, numbers, marks, negations and sentences, joined at random.
PARTS = (
    "stop the a tea milk not no yes 5 five 1,234 62% $5 kg AB123 2019 red and or , . ( ) it is in Paris unlikely "
    "likely golden retriever bikes 10:30 am -3 hundred twenty ? é 停"
).split()
answers = st.lists(st.sampled_from(PARTS), max_size=7).map(" ".join) | st.text(max_size=20)


@given(one=answers, other=answers, question=answers)
def test_it_makes_no_difference_which_answer_is_the_models(one, other, question):
    assert compare_answers(one, other, question) == compare_answers(other, one, question)


@given(text=answers | st.text(max_size=2000), question=answers)
def test_an_answer_is_right_for_itself_in_other_case_and_spacing(text, question):
    assume(text.strip())
    for other in (text, f"  {text}\n", text.replace(" ", "\t "), text.casefold()):
        assert compare_answers(other, text, question).outcome == RIGHT


@given(text=answers, empty=st.text(alphabet=" \t\n\u2003", max_size=3), question=answers)
def test_an_empty_answer_is_never_right(text, empty, question):
    assert compare_answers(empty, text, question).outcome == WRONG


hundredths = st.integers(-(10**7), 10**7).map(lambda count: Fraction(count, 100))
numbers = st.integers(-(10**9), 10**9).map(Fraction) | hundredths


def spellings(value):
    plain = number_text(value)
    whole, point, decimals = plain.partition(".")
    grouped = f"{int(whole):,}{point}{decimals}"
    return [plain, grouped, f"{plain}.", f" {plain} ", f"about {plain}", f'"{plain}"', f"It is {grouped}."]


@given(value=numbers, data=st.data())
def test_a_number_is_right_in_every_spelling(value, data):
    assume(not -1 < value < 0)  # int() loses the sign of -0.5
    one, other = (data.draw(st.sampled_from(spellings(value))) for _ in range(2))
    assert compare_answers(one, other).outcome == RIGHT


@given(one=numbers, other=numbers, data=st.data(), sign=st.sampled_from(["{}", "${}", "{} kg", "{}%", "Route {}"]))
def test_another_number_is_never_right(one, other, data, sign):
    assume(one != other)
    texts = (sign.format(data.draw(st.sampled_from(spellings(value))).strip()) for value in (one, other))
    assert compare_answers(*texts).outcome != RIGHT


@given(one=st.integers(1000, 2100), other=st.integers(1000, 2100))
def test_another_year_is_wrong_however_near(one, other):
    assume(one != other)
    assert compare_answers(str(one), str(other)).outcome == WRONG


@given(
    letters=st.text("ABCDEFGH", min_size=1, max_size=3),
    one=st.integers(0, 9999),
    other=st.integers(0, 9999),
    mark=st.sampled_from(["", " ", "-"]),
)
def test_a_code_is_right_only_with_the_same_digits(letters, one, other, mark):
    outcome = compare_answers(f"{letters}{mark}{one}", f"{letters}{other}").outcome
    assert (outcome == RIGHT) == (one == other)


@given(text=st.lists(st.sampled_from("open red stop parking milk two".split()), min_size=1, max_size=3).map(" ".join))
def test_a_denial_is_never_right(text):
    for denied in (f"not {text}", f"no {text}", f"It is not {text}.", f"without {text}", f"it isn't {text}"):
        assert compare_answers(denied, text).outcome == WRONG


@pytest.mark.parametrize("other", ["tea", "tea and milk", ""])
def test_a_model_that_rambles_on_is_not_right_for_what_comes_first(other):
    rambling = "tea. " + "It is written on the sign. " * 400
    assert compare_answers(rambling, other).outcome != RIGHT


PIECES = ("a ", "1", "1,", "9.", "(", '"', '".', "-", "1 ", "one hundred ", "and ", "no ", "a.", "é", "x. ", "<>", "*")


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("rule", ["judge", "metric", "paper"])
def test_long_answers_take_no_time_to_judge(piece, rule):
    long = piece * (100_000 // len(piece))
    judge = judge_of(load_task("textvqa"), IdentifySettings(rule=rule))
    began = time.perf_counter()
    for text, answer in ((long, "5"), ("5", long), (long, f"{long}x")):
        judge.verdict("p", answer, Given(text, ""), Given(text, ""), question=long)
    assert time.perf_counter() - began < 5


def test_the_judge_finds_gaps_of_drawn_texts_that_the_metric_takes_for_right():
    facts = [fact for seed in range(40) for fact in WORLDS["stvqa"](Random(seed)).facts]
    # A student that misreads: it says what stands in another picture as the answer to the same question.
    of_question = defaultdict(list)
    for fact in facts:
        of_question[fact.question].append(fact.answer)
    missed = [(one, other, q) for q, said in of_question.items() for one, other in pairwise(said) if one != other]
    found = {
        rule: sum(judge.outcome(other, one, question) == WRONG for one, other, question in missed)
        for rule in ("judge", "metric")
        for judge in [judge_of(load_task("stvqa"), IdentifySettings.model_validate({"rule": rule}))]
    }
    assert len(missed) >= 50
    assert found["judge"] >= 0.95 * len(missed) > found["metric"]
