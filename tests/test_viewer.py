"""The viewer: what it shows of a run is what the run says; nothing hostile does anything; strangers get nothing."""

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree
from threading import Barrier, Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import parityalign as pa
from conftest import replace_levelling
from makers import content, draw
from parityalign.cli.app import app as command_line
from parityalign.core import Answer, read_manifest
from parityalign.core.layout import EVENTS, WORKING
from parityalign.core.run_folder import OWNER, RunFolder
from parityalign.pipeline.recording import Recorded
from parityalign.viewer import packages, pictures, trying, watching
from parityalign.viewer.choosing import MARKS, ORDERS, PAGE, Choice, choice_in
from parityalign.viewer.guard import REFUSED
from parityalign.viewer.marking import version_of
from projects import configure, done, make_project, parityalign
from test_old_runs import old  # noqa: F401 - a fixture
from viewing import HERE, HOSTILE, drawn_run, listed, looks, marks_in, tags_of, text_of, viewer

PAGES = ("pairs", "tests", "run", "try")


@pytest.fixture
def run(tmp_path):
    return drawn_run(tmp_path / "run")


@pytest.fixture(scope="module")
def done_once(tmp_path_factory):
    """A project on fake models whose run is finished."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    (project / "marks.jsonl").write_text("")
    config = configure(project, review="marks.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        replace_levelling(patch)
        done("run", config)
    return project


@pytest.fixture
def finished(done_once, tmp_path, trainable):
    """A run with all stages done, on fake models."""
    return copytree(done_once, tmp_path / "project") / "runs" / "a"


def verdicts_of(run):
    rows = [json.loads(line) for line in (run / "verdicts/verdicts.jsonl").read_text().splitlines()]
    return {row["pair_id"]: row for row in rows}


def pairs_of(run):
    return [json.loads(line) for line in (run / "pairs/pairs.jsonl").read_text().splitlines()]


def ids(run):
    return [pair["pair_id"] for pair in pairs_of(run)]


# Pairs


def test_paging_shows_every_pair_once_and_in_order(run):
    with viewer(run) as client:
        pages = [client.get(f"/0/pairs?page={page}").text for page in (1, 2, 3, 99)]
    assert [pair_id for page in pages[:3] for pair_id in listed(page)] == ids(run)
    assert listed(pages[3]) == listed(pages[2]) and "page 3 of 3" in text_of(pages[3])


def test_filters_search_and_sorting_are_those_of_the_records(run):
    pairs, verdicts = pairs_of(run), verdicts_of(run)
    gaps = {
        row["pair_id"]: row["confidence_gap"]
        for row in map(json.loads, (run / "discrepancy/pairs.jsonl").read_text().splitlines())
    }

    def expected(holds):
        return [pair["pair_id"] for pair in pairs if holds(pair, verdicts[pair["pair_id"]])][:PAGE]

    known = sorted((each for each in ids(run) if gaps[each] is not None), key=lambda each: -gaps[each])
    questions = {
        "verdict=neither": expected(lambda pair, verdict: verdict["verdict"] == "neither"),
        "words=WHAT+IS+11": expected(lambda pair, verdict: "What is 11" in pair["question"]),
        "words=taught&verdict=unsure": expected(
            lambda pair, verdict: verdict["verdict"] == "unsure" and verdict["teacher_text"]
        ),
        "kind=colours": ids(run)[::2][:PAGE],
        "least=1.5&most=2": [each for each in ids(run) if gaps[each] is not None and 1.5 <= gaps[each] <= 2],
        "mark=none": ids(run)[:PAGE],
        "mark=drop": [],
    }
    with viewer(run) as client:
        assert {asked: listed(client.get(f"/0/pairs?{asked}").text) for asked in questions} == questions
        sorted_by_gap = listed(client.get("/0/pairs?sort=confidence+gap").text)
    assert [gaps[each] for each in sorted_by_gap] == [gaps[each] for each in known[:PAGE]]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).map(str.strip)


@settings(max_examples=40)
@given(
    st.builds(
        Choice,
        table=st.just("pairs"),
        wanted=st.dictionaries(st.sampled_from(["task", "verdict", "kind"]), TEXTS.filter(bool)),
        words=TEXTS,
        mark=st.sampled_from(["", *MARKS]),
        least=st.none() | st.floats(-9, 9),
        most=st.none() | st.floats(-9, 9),
        sort=st.sampled_from([*ORDERS["pairs"]]),
        page=st.integers(1, 9999),
    )
)
def test_an_address_holds_a_whole_choice(choice):
    from starlette.datastructures import QueryParams

    assert choice_in("pairs", QueryParams(choice.address())) == choice


@pytest.mark.parametrize(
    "asked", ["page=-3", "page=9e9", "page=99999999999", "sort=place;--", "least=nan&most=x", "mark=all"]
)
def test_what_makes_no_sense_in_an_address_is_left_out(run, asked):
    with viewer(run) as client:
        assert listed(client.get(f"/0/pairs?{asked}").text) in (ids(run)[:PAGE], ids(run)[-20:])


def test_a_pair_stands_with_what_every_model_said_and_how_that_changed(finished):
    run = pa.open_run(finished)
    held = [json.loads(line) for line in (finished / "student/held_out.jsonl").read_text().splitlines()]
    with viewer(finished) as client:
        for pair, verdict in run.judged:
            text = text_of(client.get(f"/0/pairs/{pair.pair_id}").text)
            assert pair.question in text and verdict.reason in text
            assert f"student before {verdict.student_text}" in text
        assert held
        for each in held:
            text = text_of(client.get(f"/0/pairs/{each['pair_id']}?part").text)
            changed = {(False, True): "gained", (True, True): "still right"}[each["right_before"], each["right_after"]]
            assert f"student after {each['text']} {changed}" in text


def test_the_attention_of_both_models_lies_over_the_picture_of_a_pair(tmp_path):
    run = drawn_run(tmp_path / "run", pairs=6, signals=True)
    with viewer(run) as client:
        for number, pair_id in enumerate(ids(run)):
            page = client.get(f"/0/pairs/{pair_id}?part").text
            cells = [
                float(dict(tag.attributes)["fill-opacity"])
                for tag in tags_of(page)
                if "fill-opacity" in dict(tag.attributes)
            ]
            expected = [looks(number, who).astype("f2") for who in ("teacher", "student") if number % 2 == 0]
            shares = [share for each in expected for share in each / each.max() if share > 0.01]
            assert cells == pytest.approx([0.75 * share for share in shares], abs=0.01)
            assert page.count("?large") == 1 + len(expected)
            assert (f"because of {number // 2}" in text_of(page)) == (number % 2 == 0)
        assert listed(client.get("/0/pairs?words=because+of+1").text)[:1] == ids(run)[2:3]


def test_attention_that_cannot_be_read_is_told_and_the_pair_is_shown(tmp_path):
    run = drawn_run(tmp_path / "run", pairs=2, signals=True)
    shard = next((run / "discrepancy").glob("student-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-8] + b"damaged!")
    with viewer(run) as client:
        text = text_of(client.get(f"/0/pairs/{ids(run)[0]}").text)
    assert "Where the models looked cannot be shown" in text and shard.name in text and "What is 0?" in text


def test_a_run_that_goes_on_is_read_again(run):
    with viewer(run) as client:
        assert "student before said" in text_of(client.get("/0/pairs").text)
        (run / "verdicts/verdicts.jsonl").unlink()
        (run / "verdicts/manifest.json").unlink()
        for _ in range(2):  # one look that notices, one after it was read
            client.get("/0/pairs")
            client.runs[0].wait()
        assert "student before was not asked" in text_of(client.get("/0/pairs").text)


def test_a_folder_that_cannot_be_read_is_told_and_read_again(run, monkeypatch):
    def fails(*_):
        raise RecursionError("too deep")

    monkeypatch.setattr(watching, "read_run", fails)
    with viewer(run) as client:
        assert "could not be read: RecursionError: too deep" in text_of(client.get("/0/pairs").text)
        monkeypatch.undo()
        assert "too deep" in text_of(client.get("/0/pairs").text)
        monkeypatch.setattr(watching, "_RETRIED_AFTER", 0)
        client.get("/0/pairs")
        client.runs[0].wait()
        page = client.get("/0/pairs").text
        assert listed(page) and "too deep" not in page


# Review


def mark(client, pair_id, kind, **more):
    fields = {"pair_id": pair_id, "mark": kind, "seen": "", **more}
    return client.post("/0/marks", data=fields, headers={"accept": "application/json"})


def test_marks_lie_in_the_file_and_are_pending_until_the_run_applies_them(finished):
    first, second, third = ids(finished)[:3]
    with viewer(finished) as client:
        assert mark(client, first, "drop", note="no\tsign ").json()["pending"]
        assert mark(client, second, "correct", answer=" a  red kite").json()["pending"]
        assert not mark(client, third, "keep").json()["pending"]
        assert listed(client.get("/0/pairs?mark=pending").text) == [first, second]
    said = [
        {"pair_id": first, "mark": "drop", "note": "no sign"},
        {"pair_id": second, "mark": "correct", "answer": "a red kite"},
        {"pair_id": third, "mark": "keep"},
    ]
    assert marks_in(finished.parent.parent / "marks.jsonl") == said
    done("identify", finished)
    assert verdicts_of(finished)[first]["reason"] == "review: no sign"
    with viewer(finished) as client:
        assert listed(client.get("/0/pairs?mark=pending").text) == []
        assert "a person's; written was:" in text_of(client.get(f"/0/pairs/{second}").text)
        assert mark(client, first, "keep", seen=version_of(client.runs[0].marks.of(first).mark)).json()["pending"]


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        ("correct", {"answer": " "}, "cannot be trained on"),
        ("maybe", {}, "there is no mark 'maybe'"),
        ("correct", {"answer": "a<image>b" * 300}, "cannot be trained on"),
    ],
)
def test_what_is_no_mark_is_refused_in_words_and_not_written(run, kind, more, told):
    with viewer(run) as client:
        answer = mark(client, ids(run)[0], kind, **more)
        assert answer.status_code == 400 and told in answer.json()["problem"]
        assert mark(client, "../../x", "drop").status_code == 404
    assert not (run / "review.jsonl").exists()


def test_pairs_can_be_drawn_at_random_and_the_page_counts_those_that_are_reviewed(run):
    with viewer(run) as client:
        drawn = listed(client.get("/0/pairs?sort=drawn+at+random").text)
        assert drawn == listed(client.get("/0/pairs?sort=drawn+at+random").text) != ids(run)[:PAGE]
        places = sorted(map(ids(run).index, drawn))
        assert places[0] < 20 and places[-1] >= 100  # from all over the run
        assert "0 reviewed" in text_of(client.get("/0/pairs").text)
        assert [mark(client, each, "keep").json()["reviewed"] for each in drawn[:3]] == [1, 2, 3]
        assert "3 reviewed" in text_of(client.get("/0/pairs").text)


def test_two_people_who_mark_at_once_lose_nothing(run):
    pair_id, *others = ids(run)
    with viewer(run) as one, viewer(run) as other:
        assert mark(one, pair_id, "drop", note="blurred").status_code == 200
        refused = mark(other, pair_id, "keep")
        assert refused.status_code == 409 and "drop (blurred)" in refused.json()["problem"]
        assert mark(other, pair_id, "keep", seen=refused.json()["version"]).status_code == 200
        with ThreadPoolExecutor(8) as people:
            said = people.map(lambda n: mark([one, other][n % 2], others[n], "drop").status_code, range(40))
            assert set(said) == {200}
    assert [line["mark"] for line in marks_in(run / "review.jsonl")[:2]] == ["drop", "keep"]
    assert {line["pair_id"] for line in marks_in(run / "review.jsonl")[2:]} == set(others[:40])


def test_a_correction_with_direction_marks_comes_back_as_it_was_written(run):
    pair_id, said = ids(run)[0], "\u200fab \u061c<b>\u200e"
    with viewer(run) as client:
        assert mark(client, pair_id, "correct", answer=said).status_code == 200
        page = client.get(f"/0/pairs/{pair_id}").text
        form = {
            tag["name"]: tag.get("value") for tag in (dict(each.attributes) for each in tags_of(page)) if "name" in tag
        }
        assert form["answer"] == said and "\\u200fab" in text_of(page)
        assert mark(client, pair_id, "keep", seen=form["seen"]).status_code == 200


def test_a_broken_file_of_marks_is_told_and_nothing_is_added(run):
    (run / "review.jsonl").write_text('{"pair_id": "x", "mark": "dorp"}\n')
    with viewer(run) as client:
        assert "there is no mark 'dorp'" in text_of(client.get("/0/pairs").text)
        assert mark(client, ids(run)[0], "drop").status_code == 400
    assert len(marks_in(run / "review.jsonl")) == 1


def test_a_run_that_names_no_file_of_marks_says_what_to_write(tmp_path):
    run = drawn_run(tmp_path / "run", pairs=3, review=False)
    with viewer(run) as client:
        assert f"review: {run / 'review.jsonl'}" in text_of(client.get("/0/pairs").text)
        assert mark(client, ids(run)[0], "drop").status_code == 200
    assert len(marks_in(run / "review.jsonl")) == 1


@pytest.mark.slow
def test_looking_and_trying_change_nothing_in_the_run_folder(finished):
    before = content(finished)
    pair_id = ids(finished)[0]
    with viewer(finished) as client:
        for page in (*PAGES, f"pairs/{pair_id}", "tests/0", f"try?pair={pair_id}"):
            assert client.get(f"/0/{page}").status_code == 200
        for who in ("before", "after", "teacher"):
            said = client.post(
                "/0/try/answers", data={"pair": pair_id, "words": "What?", "task": "textvqa", "who": who}
            )
            assert said.status_code == 200
    assert content(finished) == before


# Tests, the run, two runs


def test_questions_won_and_lost_are_those_of_the_scores(finished):
    scores = pa.open_run(finished).scores.tasks["textvqa"]
    with viewer(finished) as client:
        page = client.get("/0/tests").text
        won = client.get("/0/tests?change=won").text
    assert f"won {scores.improved}" in text_of(page) and f"unchanged {scores.n - scores.improved}" in text_of(page)
    assert f"{scores.improved} of {scores.n} questions" in text_of(won)
    assert "scores 100, compared as" in text_of(won) and "student before nothing scores 0" in text_of(won)


def test_answers_so_far_are_shown_while_stages_are_at_work(finished):
    for name in ("answers/manifest.json", "answers/after.jsonl", "answers/teacher.jsonl"):
        (finished / name).unlink()
    for name in ("verdicts/manifest.json", "verdicts/verdicts.jsonl"):
        (finished / name).unlink()
    said = [json.loads(line) for line in (finished / "verdicts/student.jsonl").read_text().splitlines()]
    with viewer(finished) as client:
        assert "student after was not asked" in text_of(client.get("/0/tests").text)
        for each in said:
            assert f"student before {each['text']}" in text_of(client.get(f"/0/pairs/{each['item_id']}").text)


def test_the_page_of_a_run_has_its_stages_counts_and_settings(finished):
    counts = read_manifest(finished / "verdicts")["counts"]
    with viewer(finished) as client:
        text = text_of(client.get("/0/run").text)
    assert f"gaps {counts['gaps']}" in text and "identify done" in text and "batch_size: 3" in text
    assert "annotate fake:" in text  # what was asked, and of whom


def test_curves_are_those_of_the_last_training(run):
    events = [
        *({"event": "measured", "what": "level held-out loss", "step": step, "value": 9.0} for step in (0, 1)),
        {"event": "finished", "stage": "level"},
        *({"event": "measured", "what": "level held-out loss", "step": n, "value": 2 - n / 4} for n in (0, 2, 2, 4)),
        {"event": "measured", "what": "level training loss", "step": 1, "value": 1.5},
        {"event": "measured", "what": "control held-out loss", "step": 8, "value": 7.0},
        {"event": "measured", "what": "level training loss", "step": 3, "value": None},
    ]
    (run / EVENTS).write_text("".join(f"{json.dumps(event)}\n" for event in events) + '{"event": "mea')
    with viewer(run) as client:
        page = client.get("/0/run").text
    assert "held-out loss: from 2 to 1; " in page.replace("training loss: from 1.5 to 1.5; ", "") or (
        "training loss: from 1.5 to 1.5; held-out loss: from 2 to 1." in page
    )
    assert "held-out loss after 4 steps: 1" in page and "after 8 steps" not in page


def test_the_step_at_work_is_shown_while_its_process_lives(run):
    said = {
        "step": "identify student",
        "done": 30,
        "total": 120,
        "done_before": 0,
        "seconds": 10.0,
        "detail": "9 a second",
    }
    (run / WORKING).write_text(json.dumps(said))
    (run / OWNER).write_text(str(os.getpid()))
    with viewer(run) as client:
        assert "identify student : 30 of 120, about 30 s left 9 a second" in text_of(client.get("/0/run").text)
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        (run / OWNER).write_text(str(ended.pid))
        assert "identify student" not in text_of(client.get("/0/run").text)


@pytest.mark.parametrize(
    ("done", "seconds"),
    [("1e999", "1"), ("2", "1e999"), ("2", "NaN"), ("2", "9" * 400), ("2", '["x"]'), ("[" * 100_000, "1")],
    ids=range(6),
)
def test_a_step_with_impossible_numbers_harms_no_page(run, done, seconds):
    said = f'"done": {done}, "total": 9, "done_before": 0, "seconds": {seconds}, "detail": ""'
    (run / WORKING).write_text(f'{{"step": "x", {said}}}')
    (run / OWNER).write_text(str(os.getpid()))
    (run / EVENTS).write_text('{"event": "finished", "stage": "identify", "seconds": 1e999}\n')
    with viewer(run) as client:
        answer = client.get("/0/run")
        assert answer.status_code == 200 and "inf" not in text_of(answer.text).split()


def test_a_run_at_work_leaves_its_step_and_takes_it_back(tmp_path):
    told = []
    with RunFolder(tmp_path / "run") as folder:
        recorded = Recorded(folder, lambda *step: told.append(step))
        recorded.detail("annotate", "before it began")
        recorded("annotate", 3, 9)
        assert json.loads((folder.path / WORKING).read_text())["done"] == 3
        recorded.measured("level held-out loss", 4, 0.5)
        recorded.measured("level held-out loss", 8, float("nan"))
        recorded.end()
    assert told == [("annotate", 3, 9)] and not (tmp_path / "run" / WORKING).exists()
    events = [json.loads(line) for line in (tmp_path / "run" / EVENTS).read_text().splitlines()]
    assert [(each["what"], each["step"], each["value"]) for each in events] == [
        ("level held-out loss", 4, 0.5),
        ("level held-out loss", 8, None),
    ]


def test_two_runs_differ_in_what_differs(tmp_path):
    one, other = drawn_run(tmp_path / "one", 40), drawn_run(tmp_path / "other", 30)
    (other / "run.yaml").write_text((other / "run.yaml").read_text() + "seed: 7\n")
    verdicts = [*verdicts_of(other).values()]
    verdicts[0]["verdict"] = "both"
    (other / "verdicts/verdicts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in verdicts))
    (other / "verdicts/manifest.json").unlink()
    with viewer(one, other) as client:
        text = text_of(client.get("/compare?one=0&other=1").text)
        assert "These are the same run" in text_of(client.get("/compare?one=1&other=1").text)
        assert client.get("/compare?one=0&other=5").status_code == 404
    assert "seed - 7" in text and "teacher" not in text.partition("Settings that differ")[2].partition("Counts")[0]
    assert "30 pairs are in both runs, 10 only in one , 0 only in other" in text
    assert "gap (only the teacher is right) both are right 1" in text and "annotate pairs 40 30" in text


@pytest.fixture
def twins(done_once, tmp_path):
    """Two runs on the same test split, whose levelled students differ."""
    project = copytree(done_once, tmp_path / "project")
    other = copytree(project / "runs" / "a", project / "runs" / "b")
    rows = [json.loads(line) for line in (other / "answers/after.jsonl").read_text().splitlines()]
    for row in rows[:6]:
        row["text"] = "another"
    (other / "answers/after.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (other / "answers/manifest.json").unlink()
    return project / "runs" / "a", other


def test_two_students_are_compared_on_the_questions_that_both_were_asked(twins):
    with viewer(*twins) as client:
        there = text_of(client.get("/compare").text)
        back = text_of(client.get("/compare?one=1&other=0").text)
    assert "The levelled student of a is better: on 8 test questions" in there.replace(" :", ":")
    assert "the score of b minus that of a is -75.0 points [-100.0" in there
    assert "The levelled student of a is better" in back and "minus that of b is +75.0 points" in back
    assert "6 questions score higher in a , 0 lower" in back and "right: stop" in back


def test_questions_about_other_pictures_are_other_questions(twins):
    one, other = twins
    elsewhere = copytree(one.parent.parent / "test", one.parent.parent / "other test")
    for path in sorted((elsewhere / "train_images").iterdir())[1:]:
        draw(path, "blue")
    questions = other / "tests/textvqa/questions.jsonl"
    questions.write_text(questions.read_text().replace("/test/", "/other test/"))
    (other / "tests/textvqa/manifest.json").unlink()
    with viewer(*twins) as client:
        assert "on 1 test questions that both were asked" in text_of(client.get("/compare").text)
        for path in (elsewhere / "train_images").iterdir():
            path.unlink()
    with viewer(*twins) as client:
        assert "no test question in common" in text_of(client.get("/compare").text)


# Runs that are old, damaged, or not there


def test_a_run_of_the_first_version_is_shown_as_far_as_it_goes(old):  # noqa: F811
    run = old / "runs" / "a"
    with viewer(run) as client:
        assert listed(client.get("/0/pairs").text) == ids(run)
        assert "is called" in text_of(client.get("/0/run").text)  # a setting that has another name today
        for page in PAGES:
            assert client.get(f"/0/{page}").status_code == 200
        assert "stop × 10 student before stop student after stop" in text_of(client.get("/0/tests/0").text)


def test_a_damaged_file_is_told_and_the_rest_is_shown(run):
    damaged = (run / "verdicts/verdicts.jsonl").read_text().replace("because", "becouse", 1)
    (run / "verdicts/verdicts.jsonl").write_text(damaged)
    with viewer(run) as client:
        page = client.get("/0/pairs").text
    assert "was changed after the run wrote it" in text_of(page) and listed(page) == ids(run)[:PAGE]


def test_a_configuration_that_cannot_be_read_is_told(run):
    (run / "run.yaml").write_text("teacher: [nonsense")
    with viewer(run) as client:
        for page in PAGES:
            assert "run.yaml" in text_of(client.get(f"/0/{page}").text)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    refused = parityalign("view", tmp_path)
    assert refused.exit_code == 2 and "is not a run folder" in refused.stderr


def test_without_its_packages_the_line_that_installs_them_is_told(run, monkeypatch):
    monkeypatch.setattr(packages, "NEEDED", ("starlette_that_is_not_there",))
    refused = parityalign("view", run)
    assert refused.exit_code == 2 and "pip install 'parityalign[view]'" in refused.stderr


@pytest.mark.slow
def test_other_commands_and_help_load_no_server():
    code = "import sys, parityalign.cli.app; sys.exit(bool({'starlette', 'uvicorn'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert "view" in [command.name for command in command_line.registered_commands]


# Pictures


def test_a_picture_is_pixels_only_and_no_larger_than_asked(run):
    path = run.parent / "pool" / "0.png"
    secret = Image.new("RGB", (2000, 1000), "red")
    exif = Image.Exif()
    exif[0x010E] = "where it was taken"
    secret.save(path.with_suffix(".jpg"), exif=exif)
    with viewer(run) as client:
        sent = client.post("/0/try/pictures", content=path.with_suffix(".jpg").read_bytes()).json()["picture"]
        large = client.get(f"/0/try/pictures/{sent}?large")
        small = client.get(f"/0/try/pictures/{sent}")
    assert b"where it was taken" in path.with_suffix(".jpg").read_bytes()
    assert b"where it was taken" not in large.content
    assert Image.open(_file(large.content)).size == (1600, 800) and Image.open(_file(small.content)).size == (160, 80)


def test_a_picture_that_two_threads_make_at_once_counts_once(run, monkeypatch):
    both, make, made = Barrier(2), pictures._encoded, pictures.Pictures()

    def together(*given):
        both.wait(10)
        return make(*given)

    monkeypatch.setattr(pictures, "_encoded", together)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda _: made.encoded(run.parent / "pool" / "0.png", 160), range(2))
    assert one == other and made._bytes == len(one.content)


def test_a_full_disk_refuses_a_picture_in_words(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    picture = (run.parent / "pool" / "0.png").read_bytes()
    with viewer(run) as client:
        monkeypatch.setattr(Path, "write_bytes", full)
        answer = client.post("/0/try/pictures", content=picture)
        assert answer.status_code == 507 and "No space left on device" in answer.json()["problem"]


def _file(content):
    from io import BytesIO

    return BytesIO(content)


@pytest.mark.parametrize("change", ["moved", "another", "broken"])
def test_a_picture_that_left_its_place_shows_as_such(run, change):
    path = run.parent / "pool" / "0.png"
    {"moved": path.unlink, "another": lambda: draw(path, "blue"), "broken": lambda: path.write_bytes(b"x")}[change]()
    with viewer(run) as client:
        page = client.get("/0/pairs").text
        picture = client.get(
            f"/0/pictures/{json.loads((run / 'images/accepted.jsonl').read_text().splitlines()[0])['image_id']}"
        )
    assert "The picture cannot be shown" in text_of(page) and str(path) in text_of(page)
    assert picture.status_code == 404 and b"no picture" in picture.content


@pytest.mark.parametrize("name", ["..%2f..%2frun.yaml", "%2e%2e%2frun.yaml", "run.yaml", "0.png", "%00", "x" * 5000])
def test_only_pictures_that_the_run_lists_are_sent(run, name):
    with viewer(run) as client:
        for place in ("pictures", "try/pictures", "test-pictures"):
            answer = client.get(f"/0/{place}/{name}")
            assert answer.status_code in (404, 405) and b"teacher" not in answer.content
        assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize(
    "sent", [b"", b"GIF89a", b"<svg onload='alert(1)'/>", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n" + b"\0" * 99]
)
def test_what_is_no_picture_is_not_taken(run, sent):
    with viewer(run) as client:
        answer = client.post("/0/try/pictures", content=sent)
        assert answer.status_code == 400 and "no picture" in answer.json()["problem"]


def test_more_bytes_than_a_picture_may_have_are_not_read(run, monkeypatch):
    monkeypatch.setattr("parityalign.viewer.try_pages.MAX_BYTES", 1000)
    with viewer(run) as client:
        assert client.post("/0/try/pictures", content=b"x" * 1001).status_code == 413
        assert client.post("/0/marks", content=b"x" * 30_000).status_code == 413


# Try


def tried(client, who, **more):
    return client.post(
        "/0/try/answers", data={"words": "What is written?", "task": "textvqa", "who": who, **more}
    ).json()


@pytest.mark.slow
def test_each_model_answers_a_question_of_one_s_own(finished):
    pair_id = next(
        pair_id for pair_id, verdict in verdicts_of(finished).items() if verdict["verdict"] == "teacher_only"
    )
    answer = next(pair["answer"] for pair in pairs_of(finished) if pair["pair_id"] == pair_id)
    with viewer(finished) as client:
        said = {who: tried(client, who, pair=pair_id)["text"] for who in ("before", "after", "teacher")}
        assert said == {"before": "nothing", "after": answer, "teacher": answer}
        question = tried(client, "teacher", question="0")
        assert question["text"] and not question["problem"]


def test_a_model_that_cannot_be_loaded_says_so(finished):
    (finished.parent.parent / "teacher.json").write_text("no model")
    with viewer(finished) as client:
        said = tried(client, "teacher", pair=ids(finished)[0])
        assert not said["text"] and "teacher.json" in said["problem"]
        assert tried(client, "before", pair=ids(finished)[0])["text"]
        assert client.post("/0/try/answers", data={"words": "What?", "who": "before"}).status_code == 400


def test_without_a_levelled_student_there_is_none_to_try(run):
    with viewer(run) as client:
        assert "there is no student after levelling" in tried(client, "after", pair=ids(run)[0])["problem"]


def test_another_run_s_question_closes_no_model_that_is_asked_but_pictures_are_taken(tmp_path, monkeypatch):
    class Slow:
        def __init__(self, config):
            self.closed = False

        def answer(self, *_):
            begun.set()
            go_on.wait(10)
            return Answer(item_id="try", text="closed" if self.closed else "open")

        def close(self):
            self.closed = True

    begun, go_on = Event(), Event()
    monkeypatch.setattr(trying, "TriedModels", Slow)
    runs = [drawn_run(tmp_path / name / "run", pairs=1) for name in ("a", "b") if not (tmp_path / name).mkdir()]
    with viewer(*runs) as client, ThreadPoolExecutor(2) as threads:
        first, second = client.runs
        trials, picture = trying.Trials(), tmp_path / "a" / "pool" / "0.png"
        said = [threads.submit(trials.ask, each, "before", picture, "What?", "textvqa") for each in (first, second)]
        assert begun.wait(10) and trials.keep(picture.read_bytes())
        go_on.set()
        assert [each.result().text for each in said] == ["open", "open"]
        trials.close()


# Strangers, and texts that would be more


STRANGERS = {
    "no token": ("GET", "/0/pairs", {}),
    "wrong token": ("GET", "/0/pairs?token=guess", {}),
    "wrong cookie": ("GET", "/0/pairs", {"cookie": "parityalign=1"}),
    "a token in a form": ("POST", "/0/marks?token={token}", {"origin": HERE}),
}
OTHERS = {
    "another name": ("GET", "/0/pairs", {"host": "rebound.example:8765"}),
    "a name that begins like ours": ("GET", "/0/pairs", {"host": "127.0.0.1.rebound.example"}),
    "a name with a user": ("GET", "/0/pairs", {"host": "rebound.example@127.0.0.1"}),
    "another site's script": ("GET", "/0/pairs", {"origin": "http://elsewhere.example"}),
    "another port's page": ("POST", "/0/marks", {"origin": "http://127.0.0.1:9999"}),
    "a page without origin": ("POST", "/0/marks", {"origin": "null"}),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_without_the_token_there_is_nothing(run, who):
    method, place, headers = STRANGERS[who]
    with viewer(run, token=False) as client:
        answer = client.request(method, place.format(token=client.token), headers=headers)
    assert (answer.status_code, answer.text) == (403, REFUSED)


@pytest.mark.parametrize("who", OTHERS)
def test_another_name_or_origin_gets_nothing_even_with_the_cookie(run, who):
    method, place, headers = OTHERS[who]
    with viewer(run) as client:
        answer = client.request(method, place, headers=headers)
        named = client.get(f"/?token={client.token}", headers={"host": "rebound.example"})
    assert (answer.status_code, answer.text) == (403, REFUSED) and named.status_code == 403
    assert "set-cookie" not in named.headers


def test_a_picture_in_another_site_s_page_gets_nothing(run):
    with viewer(run, token=False) as client:
        client.get(f"/?token={client.token}")
        asked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        assert client.get("/0/pairs", headers=asked).status_code == 403
        assert client.post("/0/marks").status_code == 403  # a form that says nothing of where it is from
        assert client.get("/0/pairs", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_the_cookie_is_for_this_browser_and_no_script(run):
    with viewer(run, token=False) as client:
        welcome = client.get(f"/0/pairs?words=a%22b&token={client.token}")
        client.cookies.clear()
        other = client.get(f"/?token={client.token}x")
    cookie = welcome.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and client.token not in welcome.text
    assert "/0/pairs?words=a%22b" in welcome.text and other.status_code == 403


def test_every_answer_forbids_what_is_not_from_here(run):
    with viewer(run) as client:
        for place in ("/0/pairs", "/nowhere", "/static/viewer.js", "/0/pictures/x"):
            headers = client.get(place).headers
            policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'" and set(policy.values()) == {"'none'", "'self'"}
            assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_hostile_texts_are_texts_on_every_page(tmp_path):
    run = drawn_run(tmp_path / HOSTILE[0].replace("/", ""), pairs=16, texts=HOSTILE, signals=True)
    (run / EVENTS).write_text(json.dumps({"event": HOSTILE[1], "stage": HOSTILE[0], "because": HOSTILE[2]}) + "\n")
    first = ids(run)[0]
    line = {"pair_id": first, "mark": "correct", "answer": HOSTILE[1], "note": HOSTILE[2]}
    (run / "review.jsonl").write_text(json.dumps(line) + "\n")
    with viewer(run) as client:
        places = [
            *PAGES,
            *(f"pairs/{pair_id}" for pair_id in ids(run)),
            f"try?pair={first}",
            "pairs?words=%3Cscript%3E",
        ]
        pages = [client.get(f"/0/{place}").text for place in places]
        pages += [client.get("/compare").text, client.get("/0/%3Cscript%3E").text]
    harmless = {tag.name for tag in tags_of(pages[1])} | {"img", "i", "form", "input", "button", "textarea"}
    for page in pages:
        tags = tags_of(page)
        assert [dict(tag.attributes)["src"] for tag in tags if tag.name == "script"] == ["/static/viewer.js"]
        assert not {"iframe", "style"} & {tag.name for tag in tags}
        for tag in tags:
            for name, value in tag.attributes:
                assert not name.startswith("on") and name != "style"
                assert name not in ("src", "href", "action") or value.startswith("/") and not value.startswith("//")
        assert not {"\u202e", "\u2066", "\x1b", "\x07", "\0"} & {*page}
    assert harmless and "\\u202egnp.exe" in "".join(map(text_of, pages)) and "{{ 7 * 7 }}" in "".join(pages)
