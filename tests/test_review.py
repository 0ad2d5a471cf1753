"""A person's marks: drops and corrections count, the rest stays as it was, and only what is new is asked."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asking import word
from parityalign.core import UserError
from parityalign.export import export_run
from parityalign.report import write_report
from parityalign.stages import Mark, append_marks, read_review
from test_own_pairs import as_lines, asked, counts, lines, opened, project  # noqa: F401 - fixtures

EVALUATE = {"speed_questions": 0, "forgotten_pairs": 0, "resamples": 100}


def pair_ids(run):
    """By number."""
    return {int(pair.question[8:-1]): pair.pair_id for pair in run.pairs}


def reviewed(folder, *marks, upto="identify"):
    if not (folder / "review.jsonl").exists() or marks:
        lines(folder / "review.jsonl", marks)
    return opened(folder, as_lines(folder), review="review.jsonl", evaluate=EVALUATE).upto(upto)


def review_of(folder, *marks):
    return folder / lines(folder / "review.jsonl", marks)


def verdicts(run):
    return {int(pair.question[8:-1]): (pair.answer, verdict.verdict.value) for pair, verdict in run.judged}


@pytest.fixture
def ids(project, asked):  # noqa: F811
    """The ids of a judged run; what it asked is no longer counted."""
    run = opened(project, as_lines(project), evaluate=EVALUATE).upto("identify")
    asked.taken()
    return pair_ids(run)


def test_a_dropped_pair_stays_in_the_files_with_the_person_s_reason(project, asked, ids):  # noqa: F811
    before = (project / "runs/a/pairs/pairs.jsonl").read_bytes()
    drops = [{"pair_id": ids[1], "mark": "drop", "note": "no\tsign "}, {"pair_id": ids[2], "mark": "drop"}]
    run = reviewed(project, *drops)
    said = {verdict.pair_id: (verdict.verdict.value, verdict.reason) for verdict in run.verdicts}
    assert said[ids[1]] == ("dropped", "review: no sign")
    assert said[ids[2]] == ("dropped", "review: dropped by a person")
    assert counts(run, "identify")["dropped: review"] == 2
    assert (project / "runs/a/pairs/pairs.jsonl").read_bytes() == before
    assert ids[1] not in {pair.pair_id for pair in run.gaps}
    assert asked.taken() == {}


def test_a_corrected_answer_is_judged_trained_on_and_told_of(project, asked, ids):  # noqa: F811
    correct = {"pair_id": ids[2], "mark": "correct", "answer": " a  red\nkite "}
    run = reviewed(project, correct, {"pair_id": ids[3], "mark": "drop"}, upto="level")
    assert verdicts(run)[2] == ("a red kite", "neither")  # the teacher still says what it wrote
    assert asked.taken() == {"teacher": 1}
    assert ("What is 2?", "a red kite") in asked.trained and ("What is 2?", word(2)) not in asked.trained
    assert "What is 3?" not in dict(asked.trained)
    pair = next(pair for pair, _ in run.judged if pair.pair_id == ids[2])
    assert (pair.answer, pair.written) == ("a red kite", word(2))
    assert next(pair.answer for pair in run.pairs if pair.pair_id == ids[2]) == word(2)
    told = "A person corrected the answers of 1 pair and dropped 1."
    assert told in " ".join((run.path / "student" / "README.md").read_text().split())
    assert "| corrected | 1 |" in (run.path / "student" / "README.md").read_text()
    assert told in write_report(run.path).read_text()


def test_a_correction_that_the_teacher_shares_is_a_gap_with_both_answers(project, asked, ids):  # noqa: F811
    wrong = [{"image": "photos/5.png", "question": "What is 5?", "answer": "wrong"}]
    lines(project / "mine.jsonl", wrong)
    lines(project / "review.jsonl", [])
    run = opened(project, "mine.jsonl", run="runs/b").upto("identify")
    assert verdicts(run)[5] == ("wrong", "neither")
    lines(project / "review.jsonl", [{"pair_id": pair_ids(run)[5], "mark": "correct", "answer": word(5)}])
    run = opened(project, "mine.jsonl", run="runs/b", review="review.jsonl").upto("identify")
    assert verdicts(run)[5] == (word(5), "teacher_only")
    assert [(gap.answer, gap.written) for gap in run.gaps] == [(word(5), "wrong")]


def test_exports_have_the_person_s_answer(project, asked, ids, tmp_path):  # noqa: F811
    run = reviewed(project, {"pair_id": ids[2], "mark": "correct", "answer": "kite"})
    exported = export_run(run.config, "llava", everything=True, prompted=False, in_place=True, out=tmp_path / "out")
    rows = json.loads((exported.path / "data.json").read_text())
    assert next(row for row in rows if row["id"] == ids[2])["conversations"][1]["value"] == "kite"


def test_the_last_mark_counts_and_a_mark_on_no_pair_is_told(project, asked, ids):  # noqa: F811
    marks = [{"pair_id": ids[1], "mark": "drop"}, {"pair_id": "gone", "mark": "drop"}]
    run = reviewed(project, *marks, {"pair_id": ids[1], "mark": "keep", "seen_by": "me"})
    assert verdicts(run)[1] == (word(1), "teacher_only")
    note = next(outcome.note for outcome in run.outcomes if outcome.stage == "identify")
    assert "corrected the answers of 0 pairs and dropped 0. Of no pair in this run: 1 mark." in note


def test_a_changed_mark_does_again_what_it_touches_and_asks_what_is_new(project, asked, ids):  # noqa: F811
    first = {"pair_id": ids[2], "mark": "correct", "answer": "kite"}
    reviewed(project, first, upto="level")
    asked.taken()
    run = reviewed(project, first, {"pair_id": ids[4], "mark": "keep"}, upto="level")
    assert {outcome.why for outcome in run.outcomes} == {"up to date: nothing changed"}
    run = reviewed(project, first, {"pair_id": ids[2], "mark": "correct", "answer": "blue kite"}, upto="level")
    why = {outcome.stage: outcome.why for outcome in run.outcomes}
    assert why["annotate"].startswith("up to date") and "review marks changed" in why["identify"]
    assert why["level"].startswith("done again") and ("What is 2?", "blue kite") in asked.trained
    assert asked.taken() == {}  # both models were asked about that pair before
    run = reviewed(project, first, {"pair_id": ids[4], "mark": "correct", "answer": "hut"})
    assert asked.taken() == {"teacher": 1}


def test_a_file_without_marks_changes_nothing(project, asked, ids):  # noqa: F811
    (project / "review.jsonl").write_text("")
    run = reviewed(project)
    assert {outcome.why for outcome in run.outcomes} == {"up to date: nothing changed"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 should be an object"),
        ('{"mark": "drop"}', "line 2 has no 'pair_id'"),
        ('{"pair_id": "1", "mark": "dorp"}', "line 2: there is no mark 'dorp'. Did you mean drop?"),
        ('{"pair_id": "1", "mark": "correct"}', "line 2: the mark 'correct' needs an 'answer'"),
        ('{"pair_id": "1", "mark": "keep", "answer": "x"}', "line 2: the mark 'keep' takes no 'answer'"),
        ('{"pair_id": "1", "mark": "correct", "answer": " "}', "cannot be trained on: no_answer"),
        ('{"pair_id": "1", "mark": "correct", "answer": "a</s>"}', "cannot be trained on: special_token"),
        (f'{{"pair_id": "1", "mark": "correct", "answer": "{"a " * 13}"}}', "cannot be trained on: too_long"),
        ('{"pair_id": "1", "mark": "drop", "note": {}}', "line 2: 'note' should be a text"),
    ],
)
def test_a_broken_line_is_one_message_with_its_place(project, asked, ids, line, told):  # noqa: F811
    (project / "review.jsonl").write_text(f'{{"pair_id": "1", "mark": "keep"}}\n{line}\n')
    with pytest.raises(UserError) as refused:
        opened(project, as_lines(project), review="review.jsonl").upto("identify")
    assert "review.jsonl, line 2" in str(refused.value) and told in str(refused.value)


def test_a_missing_file_is_refused_when_the_settings_are_read(project, asked):  # noqa: F811
    with pytest.raises(UserError, match=r"'review' is .*, which is no file; to begin with, make an empty one"):
        opened(project, as_lines(project), review="nowhere.jsonl")


def test_marks_may_lie_beside_the_artifacts_of_a_run_and_not_in_one(project, asked, ids):  # noqa: F811
    place = project / "runs" / "a"
    lines(place / "review.jsonl", [{"pair_id": ids[1], "mark": "drop"}])
    run = opened(project, as_lines(project), review="runs/a/review.jsonl").upto("identify")
    assert verdicts(run)[1] == (word(1), "dropped")
    lines(place / "verdicts" / "review.jsonl", [])
    with pytest.raises(UserError, match="it contains 'review'"):
        opened(project, "mine.jsonl", review="runs/a/verdicts/review.jsonl").upto("identify")


def test_a_person_s_drop_comes_before_a_filter_and_a_keep_does_not_undo_one(project, asked, ids, monkeypatch):  # noqa: F811
    from parityalign.core import PairFilter
    from parityalign.stages import Known
    from parityalign.stages.verifying import ChosenFilter

    known = Known(
        [ChosenFilter("odd", PairFilter(lambda pair: "odd" if int(pair.question[8:-1]) % 2 else None), True)],
        read_review(review_of(project, {"pair_id": ids[1], "mark": "drop"}, {"pair_id": ids[3], "mark": "keep"})),
    )
    pairs = {int(pair.question[8:-1]): pair for pair in opened(project, "mine.jsonl").pairs}
    marks = known.marks([pairs[n] for n in (1, 2, 3)])
    assert marks == {pairs[1].pair_id: "review: dropped by a person", pairs[3].pair_id: "odd: odd"}


# Written by a program


@given(st.lists(st.builds(Mark, pair_id=st.text(min_size=1), mark=st.sampled_from(["keep", "drop"]), note=st.text())))
def test_whatever_a_note_says_its_mark_is_read_back(tmp_path_factory, marks):
    path = tmp_path_factory.mktemp("marks") / "review.jsonl"
    append_marks(path, marks)
    expected = {mark.pair_id: mark.mark for mark in marks}
    assert {mark.pair_id: mark.mark for mark in read_review(path).marks.values()} == expected


def test_marks_of_several_programs_are_all_kept_whole(tmp_path):
    path = tmp_path / "review.jsonl"
    marks = [Mark(pair_id=f"p{n}", mark="correct", answer=f"answer {n}") for n in range(200)]
    with ThreadPoolExecutor(8) as hands:
        list(hands.map(lambda mark: append_marks(path, [mark]), marks))
    assert read_review(path).marks == {mark.pair_id: mark for mark in marks}


def test_a_line_that_a_person_left_open_is_closed_and_kept(tmp_path):
    path = tmp_path / "review.jsonl"
    path.write_text('{"pair_id": "a", "mark": "drop"}')
    append_marks(path, [Mark(pair_id="b", mark="keep", note="fine")])
    assert path.read_text() == '{"pair_id": "a", "mark": "drop"}\n{"pair_id":"b","mark":"keep","note":"fine"}\n'
    assert {*read_review(path).marks} == {"a", "b"}
