"""Identify: who is right by which rule, what that makes of a pair, and whom it asks."""

import json
import re
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from makers import artifact, content, kept, mute, task
from parityalign.config.schema import IdentifySettings
from parityalign.core.errors import UserError
from parityalign.core.records import Answer, Pair, Verdict, VerdictKind, content_id
from parityalign.engines import AnswerStore, CachedModel, TwoModels, cached
from parityalign.models.backends.fake import FakeModel
from parityalign.stages.identify import VERDICTS, identify_gaps
from parityalign.stages.identify_files import identify_from_files
from parityalign.stages.judging import Given, judge_of
from parityalign.tasks import load_task

TASKS = ("textvqa", "stvqa", "chartqa", "okvqa")


def pair(number, answer="tea", task_name="toy", question=None):
    return Pair(
        pair_id=content_id(task_name, str(number)),
        image_id=str(number),
        image=f"{number}.png",
        task=task_name,
        question=question or f"What is in {number}?",
        answer=answer,
        teacher="fake:teacher",
    )


def judged(student, teacher, answer="tea", task_name="textvqa", **options):
    """The verdict and its reason on two models' texts; None is no answer."""
    judge = judge_of(load_task(task_name), IdentifySettings(**options))
    verdict = judge.verdict("p", answer, Given(student, "no_student_answer"), Given(teacher, "no_teacher_answer"))
    return verdict.verdict, verdict.reason


@pytest.mark.parametrize(
    ("student", "teacher", "when_failing", "when_all"),
    [
        ("tea", "tea", "student_right", "both"),
        ("tea", "milk", "student_right", "student_only"),
        ("milk", "tea", "teacher_only", "teacher_only"),
        ("milk", "milk", "neither", "neither"),
        ("", "", "neither", "neither"),
        ("", "tea", "teacher_only", "teacher_only"),
        (None, "tea", "dropped", "dropped"),
        ("milk", None, "dropped", "dropped"),
        ("tea", None, "student_right", "dropped"),
    ],
)
@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("rule", ["metric", "paper"])
def test_the_four_cells_are_the_same_for_every_task_and_rule(rule, task_name, student, teacher, when_failing, when_all):
    options = {"task_name": task_name, "rule": rule}
    assert judged(student, teacher, **options)[0] == when_failing
    assert judged(student, teacher, ask_teacher="all", **options)[0] == when_all


def test_a_drop_says_why():
    assert judged(None, "tea") == ("dropped", "no_student_answer")
    assert judged("milk", None) == ("dropped", "no_teacher_answer")
    for empty in ("", ".", '""', " \n", "**"):
        assert judged("tea", "tea", answer=empty) == ("dropped", "empty_answer")


def test_a_verdict_says_what_was_compared():
    assert judged("Milk.", "Tea")[1] == "student 'milk' scores 0.00; teacher 'tea' scores 1.00"
    assert judged("iced tea!", None, rule="paper")[1] == "student 'iced tea!' scores 1.00"


@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("text", ["Tea.", " tea ", "**tea**", '"Tea"', "TEA"])
def test_wrapping_and_case_do_not_make_an_answer_wrong(task_name, text):
    assert judged(text, None, task_name=task_name)[0] == "student_right"
    assert judged("milk", "tea", answer=text, task_name=task_name)[0] == "teacher_only"


@pytest.mark.parametrize(
    ("task_name", "text", "answer", "right"),
    [
        ("textvqa", "two", "2", True),
        ("okvqa", "the tennis", "Tennis", True),
        ("okvqa", "tennis ball", "tennis", False),
        ("stvqa", "Cofee Shop", "Coffee Shop", True),
        ("stvqa", "Shop", "Coffee Shop", False),
        ("chartqa", "10.4", "10", True),
        ("chartqa", "10.6", "10", False),
        ("chartqa", "2011", "11", False),
    ],
)
def test_the_metric_rule_is_the_one_of_the_task(task_name, text, answer, right):
    assert judged(text, "", answer=answer, task_name=task_name)[0] == ("student_right" if right else "neither")


def test_the_paper_rule_is_substring_inclusion_in_one_direction():
    assert judged("in 2011", None, answer="1", rule="paper")[0] == "student_right"
    assert judged("1", "2011", answer="2011", rule="paper")[0] == "teacher_only"


def test_the_threshold_decides_on_partly_right_answers():
    assert judged("abXY", "", answer="abcd", task_name="stvqa")[0] == "student_right"
    assert judged("abXY", "", answer="abcd", task_name="stvqa", threshold=0.51)[0] == "neither"


@pytest.mark.slow
@pytest.mark.parametrize("task_name", TASKS)
@settings(deadline=None)
@given(text=st.text(min_size=1, max_size=20))
def test_by_every_official_metric_an_answer_agrees_with_itself(task_name, text):
    assume("n" not in text.casefold())  # relaxed accuracy takes "nan" and "inf" for numbers, which equal nothing
    assert load_task(task_name).metric.on_pair(text, text).value >= 0.999


WORLD = {
    # number: (student's answer, teacher's answer); the pairs' answer is tea
    0: ("tea", "tea"),
    1: ("tea", "milk"),
    2: ("milk", "tea"),
    3: ("milk", "milk"),
    4: ("Milk.", "Tea."),
}


def model(place, name, **options):
    def reply(request, decoding):
        assert decoding.temperature == 0 and request.prompt.endswith("?\nanswer")
        return WORLD[int(request.image.partition(".")[0]) % 5][place]

    return FakeModel(reply, name=name, **options)


def run(folder, pairs, student, teacher, progress=mute, **options):
    made = artifact(folder, "verdicts")
    tasks = {"toy": task(metric=load_task("textvqa").metric)}
    options = {"batch_size": 2} | options
    identify_gaps(
        made,
        pairs,
        tasks,
        TwoModels(kept(folder, student), kept(folder, teacher)),
        settings=IdentifySettings(**options),
        progress=progress,
    )
    return made


def test_by_default_the_teacher_is_asked_only_where_the_student_failed(tmp_path):
    student, teacher = model(0, "student"), model(1, "teacher")
    pairs = [pair(number) for number in range(5)]
    made = run(tmp_path, pairs, student, teacher)
    assert [request.image for request in student.asked] == [f"{number}.png" for number in range(5)]
    assert [request.image for request in teacher.asked] == ["2.png", "3.png", "4.png"]
    kinds = [verdict.verdict for verdict in made.stream(VERDICTS, Verdict)]
    assert kinds == ["student_right", "student_right", "teacher_only", "neither", "teacher_only"]
    gaps = [pairs[2].pair_id, pairs[4].pair_id]
    assert [gap.pair_id for gap in made.stream("gaps.jsonl", Pair)] == gaps
    assert [verdict.pair_id for verdict in made.stream(VERDICTS, Verdict)] == [each.pair_id for each in pairs]


def test_asking_the_teacher_about_all_finds_the_same_gaps_and_fills_all_cells(tmp_path):
    pairs = [pair(number) for number in range(5)]
    teacher = model(1, "teacher")
    made = run(tmp_path / "all", pairs, model(0, "student"), teacher, ask_teacher="all")
    assert len(teacher.asked) == 5
    assert Counter(verdict.verdict for verdict in made.stream(VERDICTS, Verdict)) == {
        "both": 1,
        "student_only": 1,
        "teacher_only": 2,
        "neither": 1,
    }
    default = run(tmp_path / "default", pairs, model(0, "student"), model(1, "teacher"))
    gaps = "verdicts/gaps.jsonl"
    assert (tmp_path / "all" / gaps).read_bytes() == (tmp_path / "default" / gaps).read_bytes()
    assert default.manifest["counts"]["gaps"] == 2


def test_the_manifest_counts_verdicts_and_drops_by_task(tmp_path):
    pairs = [pair(0), pair(2), pair(3, answer=".")]
    made = run(tmp_path, pairs, model(0, "student"), model(1, "teacher"))
    expected = {"student_right": 1, "teacher_only": 1, "dropped": 1, "dropped: empty_answer": 1}
    assert made.manifest["counts"] == {"pairs": 3, "gaps": 1, **expected}
    assert made.manifest["by_task"] == {"toy": expected}


def test_no_gaps_is_a_result(tmp_path):
    made = run(tmp_path, [pair(0), pair(3)], model(0, "student"), model(1, "teacher"))
    assert made.manifest["counts"]["gaps"] == 0 and not list(made.stream("gaps.jsonl", Pair))


@pytest.mark.parametrize("where", ["question", "answer"])
def test_a_pair_that_holds_a_special_token_of_the_student_reaches_no_model(tmp_path, where):
    student = model(0, "student", special_tokens=frozenset({"<image>"}))
    teacher = model(1, "teacher")
    odd = pair(2, **{where: "an <image>?"})
    made = run(tmp_path, [pair(3), odd], student, teacher)
    assert [request.image for request in (*student.asked, *teacher.asked)] == ["3.png", "3.png"]
    verdict = list(made.stream(VERDICTS, Verdict))[1]
    assert (verdict.verdict, verdict.reason) == (VerdictKind.DROPPED, "special_token")
    assert [answer.not_asked for answer in made.stream("student.jsonl", Answer)] == [None, "special_token"]


def test_only_one_model_is_in_use_at_a_time_and_none_when_all_is_done(tmp_path):
    pairs = [pair(number) for number in range(5)]
    order = []

    def load(name, place):
        order.append(name)
        return model(place, name)

    for _ in range(2):
        identify_gaps(
            artifact(tmp_path, "verdicts"),
            pairs,
            {"toy": task(metric=load_task("textvqa").metric)},
            TwoModels(
                CachedModel("student", lambda: load("student", 0), AnswerStore()),
                CachedModel("teacher", lambda: load("teacher", 1), AnswerStore()),
            ),
            settings=IdentifySettings(),
            progress=mute,
        )
    assert order == ["student", "teacher"]


def test_the_teacher_is_not_loaded_if_the_student_has_all_right(tmp_path):
    made = artifact(tmp_path, "verdicts")
    identify_gaps(
        made,
        [pair(0), pair(1)],
        {"toy": task()},
        TwoModels(
            cached(model(0, "student")), CachedModel("teacher", lambda: pytest.fail("it was loaded"), AnswerStore())
        ),
        settings=IdentifySettings(),
        progress=mute,
    )
    assert made.manifest["counts"]["student_right"] == 2


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(answers=st.integers(0, 30), cut=st.integers(0, 300), everything=st.booleans())
def test_a_run_killed_anywhere_ends_with_the_bytes_of_an_uninterrupted_one(tmp_path_factory, answers, cut, everything):
    folder = tmp_path_factory.mktemp("runs")
    pairs = [pair(number) for number in range(13)]
    options = {"ask_teacher": "all" if everything else "failures"}
    run(folder / "whole", pairs, model(0, "student"), model(1, "teacher"), **options)
    left = iter(range(answers))

    def mortal(inner):
        def reply(request, decoding):
            if next(left, None) is None:
                raise Killed
            return inner.generate([request], decoding)[0]

        return FakeModel(reply, name=inner.name)

    try:
        run(folder / "killed", pairs, mortal(model(0, "student")), mortal(model(1, "teacher")), **options)
    except Killed:
        for stream in (folder / "killed/verdicts").glob("*.jsonl"):
            stream.write_bytes(stream.read_bytes()[: -cut or None])
    run(folder / "killed", pairs, model(0, "student"), model(1, "teacher"), **options)
    assert content(folder / "killed/verdicts") == content(folder / "whole/verdicts")


# From files


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def outside(folder, pairs, student, teacher, task_name="okvqa", **options):
    return identify_from_files(
        lines(folder / "P.jsonl", *pairs),
        teacher_answers=lines(folder / "T.jsonl", *teacher),
        student_answers=lines(folder / "S.jsonl", *student),
        task=load_task(task_name),
        settings=IdentifySettings(**options),
    )


def row(pair_id, answer="tea"):
    return {"pair_id": pair_id, "image": "a.png", "question": "What is sold?", "answer": answer, "more": 1}


def said(pair_id, text):
    return {"pair_id": pair_id, "text": text}


def test_answers_made_elsewhere_get_the_same_verdicts(tmp_path):
    pairs = [row(number) for number in range(6)] + [row("6", None), row("7", ".")]
    student = [said(str(number), WORLD[number][0]) for number in range(5)] + [said(6, "tea"), said(7, "tea")]
    teacher = [said(number, WORLD[number][1]) for number in (4, 2, 0)]
    kinds = {
        verdict.pair_id: (verdict.verdict, verdict.reason) for verdict in outside(tmp_path, pairs, student, teacher)
    }
    assert {pair_id: kind for pair_id, (kind, _) in kinds.items()} == {
        "0": "student_right",
        "1": "student_right",
        "2": "teacher_only",
        "3": "dropped",
        "4": "teacher_only",
        "5": "dropped",
        "6": "dropped",
        "7": "dropped",
    }
    assert [kinds[pair_id][1] for pair_id in "3567"] == [
        "no_teacher_answer",
        "no_student_answer",
        "empty_answer",
        "empty_answer",
    ]
    everything = outside(tmp_path, pairs, student, teacher, ask_teacher="all")
    assert [verdict.verdict for verdict in everything][:2] == ["both", "dropped"]


def test_null_texts_count_as_no_answer_and_numbers_as_text(tmp_path):
    pairs = [row(1, 5), row(2, "5"), row(3)]
    verdicts = outside(tmp_path, pairs, [said(1, 5), said(2, None), said(3, "x")], [said(3, None)], "chartqa")
    assert [verdict.reason.partition(" ")[0] for verdict in verdicts] == [
        "student",
        "no_student_answer",
        "no_teacher_answer",
    ]


def test_the_order_of_answers_and_blank_lines_do_not_matter(tmp_path):
    pairs = [row(number) for number in range(4)]
    student = [said(number, WORLD[number][0]) for number in range(4)]
    teacher = [said(number, WORLD[number][1]) for number in range(4)]
    first = outside(tmp_path, pairs, student, teacher)
    assert outside(tmp_path, pairs, ["", *student[::-1]], [*teacher[::-1], "  "]) == first


def test_the_pairs_of_a_run_can_be_read_too(tmp_path):
    written = [pair(number).model_dump() for number in range(2)]
    answers = [said(each["pair_id"], "tea") for each in written]
    assert [v.verdict for v in outside(tmp_path, written, answers, [])] == ["student_right"] * 2


@pytest.mark.parametrize(
    ("file", "rows", "where", "what"),
    [
        ("P", [row(1), row("1")], "P.jsonl, line 2", "the pair_id '1' was given before, in .*P.jsonl, line 1"),
        ("S", [said(1, "a"), said(1, "a")], "S.jsonl, line 2", "given before"),
        ("T", [said(1, "a"), said(9, "a")], "T.jsonl, line 2", "the pair_id '9' is not in .*P.jsonl"),
        ("P", [row(1), '{"pair_id": "2"'], "P.jsonl, line 2", "is not JSON"),
        ("P", ["[1]"], "P.jsonl[0]", "should be an object, but is 1"),
        ("P", [{"pair_id": 1, "image": "a", "question": "q"}], "P.jsonl, line 1", "has no 'answer'; its keys are"),
        ("S", [{"pair_id": 1, "text": ["a"]}], "S.jsonl, line 1", "'text' should be a text"),
        ("T", ["", '{"pair_id": null, "text": "a"}'], "T.jsonl, line 2", "'pair_id' is null"),
        ("S", ["\x00"], "S.jsonl, line 1", "is not JSON"),
        ("P", [], "P.jsonl is empty", "pair_id, image, question, answer"),
    ],
)
def test_a_broken_file_is_refused_with_file_and_line(tmp_path, file, rows, where, what):
    files = {"P": [row(1)], "S": [said(1, "a")], "T": [said(1, "a")]} | {file: rows}
    with pytest.raises(UserError) as refusal:
        outside(tmp_path, files["P"], files["S"], files["T"])
    assert where in str(refusal.value) and re.search(what, str(refusal.value))
    assert refusal.value.exit_status == 2


def test_a_missing_file_is_named_with_what_it_should_hold(tmp_path):
    lines(tmp_path / "P.jsonl", row(1))
    with pytest.raises(UserError, match="cannot read .*none.jsonl: No such file.* 'pair_id', 'text'"):
        identify_from_files(
            tmp_path / "P.jsonl",
            teacher_answers=tmp_path / "none.jsonl",
            student_answers=tmp_path / "none.jsonl",
            task=load_task("okvqa"),
            settings=IdentifySettings(),
        )
