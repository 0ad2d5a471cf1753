"""The command line from end to end: what it makes, what it leaves alone, how it refuses, what a kill does to it."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from makers import content, draw
from parityalign import demo
from parityalign.cli import run_commands
from parityalign.core import ANSWERS, MARKER
from parityalign.core.files import write_whole
from parityalign.models.backends import fake
from parityalign.pipeline import run_models
from projects import WORDS, configure, done, parityalign, refusal, table

CASES = [{"prediction": "Stop", "answers": ["stop"] * 10}, {"prediction": "go", "answers": ["stop"] * 10}]


def said_of(stage: str, output: str) -> str:
    return next(each for each in output.splitlines() if each.startswith((f"{stage}: done", f"{stage}: up to date")))


def results(run: Path) -> dict[str, bytes]:
    """All files of a run but those that tell of time and process."""
    passing = ("events.jsonl", ".lock", ".lock.pid", MARKER, ANSWERS, "report.html")
    return {name: data for name, data in content(run).items() if name not in passing}


# A whole run


def test_a_run_goes_from_images_to_scores_and_a_report(project, trainable):
    output = done("run", project / "run.yaml", "--details")
    run = project / "runs" / "a"
    scores = json.loads((run / "scores.json").read_text())["tasks"]["textvqa"]
    assert (scores["n"], scores["before"]["score"], scores["teacher"]["score"]) == (8, 50.0, 100.0)
    assert scores["after"]["score"] > 50.0
    gaps = [json.loads(line)["answer"] for line in (run / "verdicts" / "gaps.jsonl").read_text().splitlines()]
    assert sorted(gaps) == sorted(WORDS[4:])
    assert "TextVQA accuracy" in output
    assert "50.0" in output
    assert "of the distance to the teacher" in output
    assert "gap (only the teacher is right)" in output
    assert f"report: {run / 'report.html'}" in output
    assert (run / "report.html").stat().st_size > 1000


def test_progress_is_a_line_for_each_step_where_nobody_watches(project, trainable):
    lines = [line.partition(", took")[0] for line in done("run", project / "run.yaml").splitlines()]
    assert "annotate textvqa: 8 of 8" in lines
    assert len([line for line in lines if line.startswith("annotate textvqa: ")]) == 1


def test_a_finished_run_does_nothing_and_loads_no_model(project, trainable, monkeypatch):
    done("run", project / "run.yaml")
    before = content(project / "runs" / "a")
    times = {path: path.stat().st_mtime_ns for path in (project / "runs" / "a").rglob("*.*")}
    monkeypatch.setattr(run_models, "load_model", lambda spec, *_: pytest.fail(f"{spec} was loaded"))
    output = done("run", project / "run.yaml")
    for stage in ("intake", "annotate", "identify", "level", "evaluate"):
        assert "up to date: nothing changed" in said_of(stage, output)
    assert content(project / "runs" / "a") == before
    unlocked = {path: at for path, at in times.items() if not path.name.startswith(".lock")}
    assert {path: path.stat().st_mtime_ns for path in unlocked} == unlocked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "redone"),
    [
        ({"evaluate": {"batch_size": 3, "resamples": 100, "limit": 4}}, ["evaluate"]),
        ({"evaluate": {"batch_size": 3, "resamples": 200}}, []),
        ({"annotate": {"batch_size": 2}}, []),
        ({"level": {"epochs": 7}}, ["level"]),
        ({"level": {"replay": 0.0}}, ["level"]),
        ({"identify": {"max_new_tokens": 9}}, ["identify"]),
        ({"identify": {"rule": "metric"}}, ["identify"]),
        ({"identify": {"ask_teacher": "all"}}, ["identify"]),
        ({"annotate": {"max_new_tokens": 7}}, ["annotate"]),
    ],
)
def test_a_changed_setting_redoes_exactly_the_stages_that_it_touches(project, trainable, changes, redone):
    done("run", project / "run.yaml")
    output = done("run", configure(project, **changes))
    stages = ["intake", "annotate", "identify", "level", "evaluate"]
    assert [stage for stage in stages if "done again" in said_of(stage, output)] == redone
    assert [stage for stage in stages if "up to date" not in said_of(stage, output)] == redone


def test_why_a_stage_is_done_again_is_said(project, trainable):
    done("run", project / "run.yaml")
    output = done("run", configure(project, level={"epochs": 7}))
    assert "done again: level.epochs was 3, is 7" in said_of("level", output)


def test_new_images_are_taken_in(project, trainable):
    done("run", project / "run.yaml")
    draw(project / "pool" / "new" / "stop.png", colour="blue")
    output = done("run", project / "run.yaml")
    assert "done again: its input images of textvqa changed" in said_of("intake", output)
    assert "done again: its input images changed" in said_of("annotate", output)


def test_without_gaps_the_student_is_left_as_it_is(project):
    table(project / "student.json", WORDS)
    output = done("run", project / "run.yaml")
    assert "the student is unchanged" in output
    scores = json.loads((project / "runs" / "a" / "scores.json").read_text())["tasks"]["textvqa"]
    assert scores["before"] == scores["after"]


def test_without_a_test_split_there_are_no_scores(project, trainable):
    output = done("run", configure(project, tasks={"textvqa": {"images": "pool"}}))
    assert "no scores" in output
    assert "report.html" in output


# Stage by stage


def test_stages_run_one_by_one_come_to_the_same_as_the_whole(project, trainable):
    done("run", project / "run.yaml")
    (project / "runs" / "b").mkdir()
    said = (project / "runs" / "a" / "run.yaml").read_text()
    (project / "runs" / "b" / "run.yaml").write_text(said)
    for stage in ("intake", "annotate", "identify", "level", "evaluate", "report"):
        done(stage, project / "runs" / "b")
    assert results(project / "runs" / "a") == results(project / "runs" / "b")
    assert (project / "runs" / "b" / "report.html").exists()


def test_a_stage_whose_input_is_missing_names_the_command_to_give_first(project):
    (project / "runs" / "a").mkdir(parents=True)
    moved = yaml.safe_load((project / "run.yaml").read_text())
    moved = {**moved, "run": ".", "tasks": {"textvqa": {"images": "../../pool"}}}
    moved |= {"teacher": "fake:../../teacher.json", "student": "fake:../../student.json"}
    (project / "runs" / "a" / "run.yaml").write_text(yaml.safe_dump(moved))
    done("intake", project / "runs" / "a")
    message = refusal("identify", project / "runs" / "a")
    assert "pairs, which is not finished" in message
    assert f"parityalign annotate {project / 'runs' / 'a'}" in message


def test_a_stage_whose_input_is_out_of_date_is_refused_and_nothing_is_thrown_away(project, trainable):
    done("run", project / "run.yaml")
    run = project / "runs" / "a"
    said = yaml.safe_load((run / "run.yaml").read_text())
    said["annotate"]["temperature"] = 0.5
    (run / "run.yaml").write_text(yaml.safe_dump(said))
    before = content(run / "pairs")
    message = refusal("identify", run)
    assert "out of date: annotate.temperature was 1.0, is 0.5" in message
    assert content(run / "pairs") == before


def test_a_stage_command_on_no_run_folder_is_refused_and_makes_none(project):
    assert "is not a run folder" in refusal("level", project / "nowhere")
    assert not (project / "nowhere").exists()


def test_a_student_that_cannot_be_trained_is_named(project):
    assert "the backend 'fake' makes models that only answer" in refusal("run", project / "run.yaml")


# Run folders that are not free


def test_a_run_of_another_configuration_is_not_worked_over_unless_asked(project, trainable):
    done("run", project / "run.yaml")
    table(project / "other.json", WORDS[:2])
    other = configure(project, student="fake:other.json")
    message = refusal("run", other)
    assert "holds a run of another configuration: student was" in message
    assert "--redo" in message
    output = done("run", other, "--redo")
    assert "its input student model changed" in said_of("identify", output)
    assert "up to date" in said_of("annotate", output)


def test_a_folder_of_other_files_is_not_taken_for_a_run_folder(project):
    (project / "runs" / "a").mkdir(parents=True)
    (project / "runs" / "a" / "thesis.txt").write_text("mine")
    assert "holds files but is not a run folder" in refusal("run", project / "run.yaml")
    assert [path.name for path in (project / "runs" / "a").iterdir()] == ["thesis.txt"]


HOLDS = """import sys
from pathlib import Path
from parityalign.core import RunFolder
with RunFolder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()"""


def test_a_run_folder_in_use_is_refused_with_the_pid(project):
    command = [sys.executable, "-c", HOLDS, project / "runs" / "a"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert f"in use by another process (pid {other.pid})" in refusal("run", project / "run.yaml")


# Wrong requests and failing work


def test_a_configuration_with_several_problems_is_refused_with_all_of_them(project):
    message = refusal("run", configure(project, teacher="fak:x", level={"epocs": 1}))
    assert "unknown setting 'level.epocs'. Did you mean epochs?" in message
    message = refusal("run", configure(project, teacher="fak:x", tasks={"textvqq": {"images": "pool"}}))
    assert "no kind of model 'fak'" in message
    assert "Did you mean textvqa" in message


def test_a_teacher_that_writes_no_pairs_fails_the_work_with_three_replies_shown(project):
    (project / "teacher.json").write_text(json.dumps({"replies": [{"text": "I cannot see images."}]}))
    message = refusal("run", project / "run.yaml", status=1)
    assert message.count("I cannot see images.") == 3


def test_broken_images_are_counted_and_the_rest_goes_on(project, trainable):
    (project / "pool" / "broken.png").write_bytes(b"no picture")
    assert "not_an_image 1" in said_of("intake", done("run", project / "run.yaml"))


def test_unknown_commands_and_options_are_wrong_requests():
    assert parityalign("alignn").exit_code == 2
    assert parityalign("run", "--fast").exit_code == 2
    assert parityalign("run").exit_code == 2


def test_an_interrupted_run_says_how_to_go_on(project, monkeypatch):
    def interrupt(spec, loading):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_models, "load_model", interrupt)
    result = parityalign("run", project / "run.yaml")
    assert result.exit_code == 130
    assert "Resume with the same command" in result.stderr


# Without a run folder


def test_score_gives_a_line_for_each_case_and_then_the_mean(tmp_path):
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(case) + "\n" for case in CASES))
    rows = [json.loads(line) for line in done("score", "textvqa_accuracy", tmp_path / "f.jsonl").splitlines()]
    assert [row.get("score") for row in rows] == [1.0, 0.0, None]
    assert rows[-1] == {"metric": "textvqa_accuracy", "mean": 0.5, "count": 2}


def test_score_writes_the_cases_to_a_file_on_request(tmp_path):
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(case) + "\n" for case in CASES))
    output = done("score", "anls", tmp_path / "f.jsonl", "--out", tmp_path / "scored.jsonl")
    assert json.loads(output)["count"] == 2
    rows = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [row["score"] for row in rows] == [1.0, 0.0]


def test_score_refuses_an_unknown_metric_and_a_missing_file(tmp_path):
    (tmp_path / "f.jsonl").write_text(json.dumps(CASES[0]) + "\n")
    assert "anls" in refusal("score", "anl", tmp_path / "f.jsonl")
    assert "nowhere.jsonl" in refusal("score", "anls", tmp_path / "nowhere.jsonl")
    assert "does not exist" in refusal("score", "anls", tmp_path / "f.jsonl", "--out", tmp_path / "no" / "f")


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def elsewhere(folder: Path, **changes: object) -> list[object]:
    """The arguments of an identify from files: one gap, one pair that the student has right."""
    pair = {"image": "a.png", "question": "What is written?"}
    given = {
        "--pairs": lines(
            folder / "p.jsonl",
            [{"pair_id": "1", "answer": "stop", **pair}, {"pair_id": "2", "answer": "exit", **pair}],
        ),
        "--teacher-answers": lines(
            folder / "t.jsonl", [{"pair_id": "1", "text": "Stop."}, {"pair_id": "2", "text": "exit"}]
        ),
        "--student-answers": lines(
            folder / "s.jsonl", [{"pair_id": "1", "text": "go"}, {"pair_id": "2", "text": "exit"}]
        ),
        "--task": "textvqa",
        "--out": folder / "v.jsonl",
        **changes,
    }
    return ["identify", *(part for item in given.items() if item[1] is not None for part in item)]


@pytest.mark.parametrize("rule", ["judge", "metric", "paper"])
def test_identify_judges_answers_that_were_made_elsewhere(tmp_path, rule):
    done(*elsewhere(tmp_path), "--rule", rule)
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert {row["pair_id"]: row["verdict"] for row in rows} == {"1": "teacher_only", "2": "student_right"}
    assert all(row["reason"] for row in rows)


def test_identify_from_files_loads_no_torch(tmp_path):
    code = "import sys; from parityalign.cli.app import app; app(sys.argv[1:], standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    arguments = [str(argument) for argument in elsewhere(tmp_path)]
    assert subprocess.run([sys.executable, "-c", code, *arguments]).returncode == 0


def test_identify_says_which_options_are_missing(tmp_path):
    assert "missing: --task, --out" in refusal(*elsewhere(tmp_path, **{"--task": None, "--out": None}))
    assert "identify needs a run folder, or pairs and answers" in refusal("identify")
    assert "--pairs, --teacher-answers" in refusal(*elsewhere(tmp_path), tmp_path)
    assert "--rule are not for the run folder" in refusal("identify", tmp_path, "--rule", "paper")


def test_identify_refuses_an_unknown_task_and_an_unknown_rule(tmp_path):
    assert "Did you mean textvqa" in refusal(*elsewhere(tmp_path, **{"--task": "textvq"}))
    assert parityalign(*elsewhere(tmp_path), "--rule", "substring").exit_code == 2


# Kills


class Killed(BaseException):
    """Ends a run as abruptly as Python allows."""


def first_and_last(files: list[str]) -> list[int]:
    """The numbers, from one, of the first and the last write to each file."""
    numbers = range(1, len(files) + 1)
    last = dict(zip(files, numbers, strict=True))
    first = dict(zip(reversed(files), reversed(numbers), strict=True))
    return sorted({*first.values(), *last.values()})


@pytest.mark.long
def test_a_run_that_is_cut_off_at_a_write_is_resumed_to_the_same_result(project, trainable, monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # slow among pytest's many objects
    monkeypatch.setattr(fake.FakeModel, "facts", {"device": "none"}, raising=False)  # told by whoever loaded it
    whole = configure(project, run="runs/whole")
    writes = []
    # Where the system does not tell a file's name, every write is one of its own.
    named = Path("/proc/self/fd")
    name_of = lambda file: os.readlink(named / str(file)) if named.is_dir() else str(len(writes))  # noqa: E731
    monkeypatch.setattr("os.fsync", lambda file: writes.append(name_of(file)))
    done("run", whole)
    expected = results(project / "runs" / "whole")
    for last in first_and_last(writes)[::2]:  # make kills takes any
        config, left = configure(project, run="runs/cut"), last

        def kill(file: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                # What was just written is torn as well, as when the power fails.
                if stat.S_ISREG(os.fstat(file).st_mode):
                    os.truncate(named / str(file) if named.is_dir() else file, max(0, os.fstat(file).st_size - 7))
                raise Killed

        monkeypatch.setattr("os.fsync", kill)
        with pytest.raises(Killed):
            parityalign("run", config)
        monkeypatch.setattr("os.fsync", lambda file: None)
        done("run", config)
        found = results(project / "runs" / "cut")
        assert sorted(found) == sorted(expected)
        for name in expected:
            assert found[name].decode() == expected[name].decode(), f"{name}, cut off at write {last}"
        subprocess.run(["rm", "-r", project / "runs" / "cut"], check=True)


@pytest.mark.kills
def test_a_killed_process_is_resumed_to_the_same_result(project):
    """With a real student that is trained: torch, checkpoints and all."""
    import tiny

    tiny.fast_vlm(project / "student")
    # No two timings are alike, so nothing is timed.
    sections = {"student": "hf:student", "level": {"epochs": 4, "batch_size": 2}, "evaluate": {"speed_questions": 0}}

    def start(run: str) -> subprocess.Popen[bytes]:
        config = configure(project, run=f"runs/{run}", **sections)
        command = [sys.executable, "-m", "parityalign", "run", str(config)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    whole = start("whole")
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors.decode()
    run = project / "runs" / "killed"
    killed = start("killed")
    while killed.poll() is None and not any(run.glob(".student.training/checkpoint-*")):
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "it should be killed while it trains"
    resumed = start("killed")
    _, errors = resumed.communicate()
    assert resumed.returncode == 0, errors.decode()
    assert results(project / "runs" / "killed") == results(project / "runs" / "whole")


# The demo


@pytest.fixture
def small_demo(project, monkeypatch):
    """The demo with fake models and without its drawings."""

    said = yaml.safe_load((project / "run.yaml").read_text())
    said |= {"run": ".", "teacher": f"fake:{project}/teacher.json", "student": f"fake:{project}/student.json"}
    said["tasks"] = {"textvqa": {"images": "data/pool/textvqa", "test": "data/test/textvqa"}}
    write_whole(project / "demo.yaml", yaml.safe_dump(said))
    monkeypatch.setattr(run_commands, "DEMO_CONFIG", project / "demo.yaml")

    def write_demo_data(folder, seed, progress, *, pictures):
        for part, source in (("pool", "pool"), ("test", "test")):
            target = folder / part / "textvqa"
            if not target.exists():
                target.parent.mkdir(parents=True)
                (project / source).rename(target)
        (folder / "drawn.json").write_text("{}")

    monkeypatch.setattr(demo, "write_demo_data", write_demo_data)


def test_the_demo_draws_its_data_into_the_run_folder_and_runs(project, trainable, small_demo, monkeypatch):
    monkeypatch.chdir(project)
    assert "student before 50.0" in done("demo", "--run", "runs/demo")
    assert (project / "runs" / "demo" / "scores.json").exists()
    assert "up to date" in said_of("level", done("demo", "--run", "runs/demo"))


def test_the_demo_s_run_is_resumed_from_the_configuration_in_its_folder(project, trainable, small_demo):
    done("demo", "--run", project / "demo")
    output = done("run", project / "demo" / "run.yaml")
    assert "up to date: nothing changed" in said_of("intake", output)


def test_the_demo_draws_nothing_into_the_folder_of_its_teacher(project, small_demo):
    before = content(project)
    message = refusal("demo", "--run", project / "pool" / "demo", "--teacher", f"hf:{project / 'pool'}")
    assert f"it lies in 'teacher': {project / 'pool'}" in message
    assert content(project) == before


def test_the_demo_shows_its_controls_on_request(project, trainable, small_demo, monkeypatch):
    row = {
        "name": "random pairs",
        "pairs": 8,
        "steps": 4,
        "tasks": {"textvqa": {"score": 55.5}},
        "mean_gain": {"score": 5.5},
    }
    said = {"controls": [row], "gap_precision": {"n": 4, "right": 3}}
    write = lambda run: write_whole(run.folder.path / "controls.json", json.dumps(said))  # noqa: E731
    monkeypatch.setattr(demo, "run_controls", write)
    monkeypatch.chdir(project)
    output = done("demo", "--controls")
    assert "random pairs" in output
    assert "55.5" in output
    assert "75 % of the gaps (3 of 4)" in output
