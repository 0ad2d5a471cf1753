"""`import parityalign`: a run from a notebook, answers judged without a run, metrics."""

import json
import sys

import pytest

import parityalign as pa
from makers import mute
from parityalign.core.seals import unsealed
from projects import configure


def test_a_run_is_opened_and_worked_on_up_to_a_stage_and_read(project):
    run = pa.open_run(project / "run.yaml", progress=mute)
    assert repr(run) == f"<run {run.path}: not begun>"
    run.upto("identify")
    assert [outcome.stage for outcome in run.outcomes] == ["intake", "annotate", "identify"]
    assert len(run.pairs) == len(run.verdicts) == len(run.judged) == 8
    assert {pair.pair_id for pair in run.gaps} == {
        pair.pair_id for pair, verdict in run.judged if verdict.verdict == pa.VerdictKind.TEACHER_ONLY
    }
    assert (run.scores, run.student) == (None, None)
    assert repr(run).endswith(": intake, annotate, identify>")


def test_pairs_that_were_written_anew_are_not_shown_with_verdicts_of_earlier_ones(project):
    run = pa.open_run(project / "run.yaml", progress=mute).upto("identify")
    replies = (project / "teacher.json").read_text()
    (project / "teacher.json").write_text(replies.replace("What is written?", "Which word is it?"))
    run.upto("annotate")
    with pytest.raises(pa.UserError, match=r"are of earlier pairs: call upto\('identify'\)"):
        run.judged  # noqa: B018


@pytest.mark.slow
def test_a_whole_run_ends_with_scores_a_student_and_a_report(project, trainable):
    run = pa.open_run(project / "run.yaml", progress=mute)()
    assert run.scores.mean_gain.score == 50.0
    assert (run.student / "manifest.json").is_file() and run.report.is_file()
    again = pa.open_run(run.path, progress=mute)()  # the folder will do, and nothing is left to do
    assert all("up to date" in outcome.why for outcome in again.outcomes)


def test_a_run_is_opened_by_settings_as_a_file_would_give_them(project, monkeypatch):
    monkeypatch.chdir(project)
    run = pa.open_run(
        "runs/b",
        teacher="fake:teacher.json",
        student="fake:student.json",
        tasks={"textvqa": {"images": ["pool"], "test": project / "test"}},
        progress=mute,
    )
    assert len(run.upto("annotate").pairs) == 8
    with pytest.raises(pa.UserError, match="unknown setting 'sede'"):
        pa.open_run("runs/c", sede=1)
    for given in ("run.yaml", run.config):
        with pytest.raises(pa.UserError, match="and the settings seed. .*name a run folder"):
            pa.open_run(given, seed=1)


def test_without_pandas_a_table_is_refused_with_what_to_install(project, monkeypatch):
    run = pa.open_run(project / "run.yaml", progress=mute).upto("intake")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(pa.UserError, match=r"pip install 'parityalign\[pandas\]'"):
        run.to_pandas("images")


def test_tables_of_a_run_are_data_frames(project):
    pd = pytest.importorskip("pandas")
    run = pa.open_run(project / "run.yaml", progress=mute).upto("identify")
    gaps = run.to_pandas("gaps")
    assert isinstance(gaps, pd.DataFrame) and list(gaps["question"]) == [pair.question for pair in run.gaps]
    assert list(run.to_pandas("verdicts")["verdict"]) == [verdict.verdict for verdict in run.verdicts]
    judged = run.to_pandas("judged").set_index("pair_id")
    assert len(judged) == len(run.judged)
    for pair, verdict in run.judged:
        row = judged.loc[pair.pair_id]
        assert (row["answer"], row["student_text"]) == (pair.answer, verdict.student_text)
    with pytest.raises(pa.UserError, match="no table 'gap'.*gaps"):
        run.to_pandas("gap")


def test_what_a_run_has_not_come_to_yet_is_said_with_what_to_do(project):
    run = pa.open_run(project / "run.yaml", progress=mute)
    with pytest.raises(pa.UserError, match=r"has no gaps yet: call upto\('identify'\)"):
        run.gaps  # noqa: B018 - it is the reading that is refused
    with pytest.raises(pa.UserError, match="has no stage 'identfy'. Did you mean identify.* Known: intake, annotate"):
        run.upto("identfy")


def test_a_stage_alone_wants_those_before_it_up_to_date(project):
    with pytest.raises(pa.UserError, match="First: parityalign intake"):
        pa.open_run(project / "run.yaml", progress=mute).upto("annotate", alone=True)


def test_without_a_progress_of_ones_own_lines_are_shown(project, capsys):
    pa.open_run(configure(project)).upto("intake")
    assert "intake textvqa: 8 of 8" in capsys.readouterr().out


def test_answers_are_judged_without_a_run():
    pairs = [
        {"pair_id": "1", "question": "What is sold?", "answer": "tea"},
        {"pair_id": "2", "question": "Who waits?", "answer": "Bob"},
        {"pair_id": "3", "question": "How many?", "answer": "3"},
    ]
    found = pa.identify(pairs, ["coffee", "Bob", "4"], ["Tea", None, "5"], task="textvqa")
    assert [verdict.verdict for verdict in found] == ["teacher_only", "student_right", "neither"]
    by_id = pa.identify(pairs, {"1": "coffee"}, {"1": "tea"}, task="textvqa")
    assert [verdict.reason for verdict in by_id[1:]] == ["no_student_answer", "no_student_answer"]


@pytest.mark.parametrize(
    ("pairs", "answers", "message"),
    [
        ([{"question": "What?"}], ["a"], "has no 'answer'"),
        ([{"question": "What?", "answer": "a"}], ["a", "b"], "2 answers for 1 pairs"),
        ([{"pair_id": "1", "question": "Q?", "answer": "a"}] * 2, ["a", "b"], "ids that are given to more than one"),
    ],
)
def test_pairs_and_answers_that_do_not_fit_are_refused(pairs, answers, message):
    with pytest.raises(pa.UserError, match=message):
        pa.identify(pairs, answers, answers, task="textvqa")


def test_the_metrics_are_functions_by_their_names():
    assert pa.metrics.anls("tea", ["Tea"]).value == 1.0
    assert pa.metrics.textvqa_accuracy("two", ["2"] * 10).value == 1.0


def test_the_face_lists_what_it_has_and_knows_nothing_else():
    assert {"open_run", "identify", "metrics", "Pair", "UserError"} <= set(dir(pa))
    with pytest.raises(AttributeError):
        pa.nothing  # noqa: B018


@pytest.mark.slow
def test_the_command_line_and_the_face_do_the_same(project, trainable, tmp_path):
    from projects import done

    done("run", project / "run.yaml")
    scores = (project / "runs" / "a" / "scores.json").read_text()
    (tmp_path / "b").mkdir(exist_ok=True)
    said = {"run": str(tmp_path / "b" / "run")}
    other = pa.open_run(configure(project, **said), progress=mute)()
    assert json.loads(other.scores.model_dump_json()) == unsealed(json.loads(scores))
