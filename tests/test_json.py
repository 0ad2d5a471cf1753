"""What commands tell programs: one JSON object on standard output, nothing beside it, and all that the text says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from parityalign.cli.app import app
from parityalign.cli.telling import as_values
from projects import WORDS, configure, done, parityalign, table

SERVE = {"view", "init"}
"""Commands that have nothing to tell: one goes on until it is ended, one asks and writes a file."""


def documented():
    """{command: its fields}, as docs/scripts.md lists them."""
    text = (Path(__file__).parent.parent / "docs" / "scripts.md").read_text()
    rows = re.findall(r"^\| (`.+`) \| (`.+`) \|$", text.partition("## What is told")[2], re.M)
    names = [(re.findall(r"`(.+?)`", commands), set(re.findall(r"`(.+?)`", fields))) for commands, fields in rows]
    return {command: fields for commands, fields in names for command in commands}


FIELDS = documented()


def told(command, *arguments, status=0):
    """What a command tells; it is all that is on standard output, and what the document says."""
    result = parityalign(command, *arguments, "--json")
    assert result.exit_code == status, result.output
    found = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    ways = [f"{command} {option}" for option in arguments if f"{command} {option}" in FIELDS]
    assert found.keys() == FIELDS[(*ways, command)[0]] - {"pushed"}
    return found


def test_every_command_that_tells_something_tells_it_to_programs_too():
    commands = get_command(app).commands
    without = {
        name for name, command in commands.items() if "--json" not in {o for p in command.params for o in p.opts}
    }
    assert without == SERVE
    assert {command.partition(" ")[0] for command in FIELDS} == commands.keys() - SERVE


@pytest.mark.slow
def test_a_run_tells_what_it_would_do_what_it_did_and_how_far_it_is(project, trainable):
    run = project / "runs" / "a"
    dry = told("run", project / "run.yaml", "--dry-run")
    assert [step["stage"] for step in dry["steps"]][:3] == ["intake", "annotate", "identify"]
    assert dry["steps"][1]["questions"] == 8 and dry["steps"][1]["model"].endswith("teacher.json")
    did = told("run", project / "run.yaml")
    names = [stage["stage"] for stage in did["stages"]]
    assert names[:3] == ["intake", "annotate", "identify"] and did["stages"][0]["counts"]["accepted"] == 8
    scores = json.loads((run / "scores.json").read_text())
    assert did["scores"]["tasks"]["textvqa"]["before"] == scores["tasks"]["textvqa"]["before"]
    assert did["verdicts"]["textvqa"] == {"teacher_only": 4, "student_right": 4}
    assert did["student"] == str(run / "student") and did["report"] == str(run / "report.html")
    on_a_finished_run(run, names)


def on_a_finished_run(run, names):
    status, text = told("status", run), done("status", run)
    assert [stage["stage"] for stage in status["stages"]] == names
    assert {stage["state"] for stage in status["stages"]} == {"up to date"}
    assert all(f"{stage['asked']:,}" in text and stage["stage"] in text for stage in status["stages"])
    held, text = told("answers", run, "--drop-unused"), done("answers", run)
    assert held["dropped"] == 0 and held["store"] in text
    assert all(each["model"] in text and f"{each['answers']:,}" in text for each in held["models"])
    assert told("report", run)["report"] == str(run / "report.html")
    exported = told("export", run, "--format", "llava")
    assert exported["made"] and exported["counts"] == {"rows": 4} and exported["folder"] == str(run / "exports/llava")
    assert not told("export", run, "--format", "llava")["made"]
    (stage,) = told("intake", run)["stages"]
    assert stage["stage"] == "intake" and "up to date" in stage["why"]


def test_a_preview_tells_its_pairs_with_what_came_of_them(project):
    found = told("preview", project / "run.yaml", "--pairs", 2)
    assert len(found["pairs"]) == 2 and found["page"] == str(project / "runs/a/preview.html")
    for pair in found["pairs"]:
        assert pair["question"] == "What is written?" and pair["answer"] in WORDS
        assert pair["verdict"] in ("teacher_only", "student_right") and pair["outcome"]


def test_plan_and_doctor_tell_of_a_run_before_it_begins(project):
    plan = told("plan", project / "run.yaml", "--offline")
    assert plan["rows"] and plan["total"]["requests"] == sum(row["requests"] for row in plan["rows"])
    assert "cores" in told("doctor")["machine"]
    (project / "student").mkdir()
    teacher, student = told("doctor", configure(project, student="hf:student"), status=1)["models"]
    assert teacher["problem"] is None and "config.json" in student["problem"]


def test_scores_and_verdicts_of_files_are_told(tmp_path):
    case = {"prediction": "Stop", "answers": ["stop"], "note": float("nan")}
    (tmp_path / "f.jsonl").write_text(json.dumps(case) + "\n")
    found = told("score", "anls", tmp_path / "f.jsonl")
    assert (found["metric"], found["mean"], found["count"], found["out"]) == ("anls", 1, 1, None)
    assert found["rows"] == [{**case, "note": None, "score": 1, "compared": "stop", "why": found["rows"][0]["why"]}]
    kept = told("score", "anls", tmp_path / "f.jsonl", "--out", tmp_path / "o.jsonl")
    assert kept["out"] == str(tmp_path / "o.jsonl") and (tmp_path / "o.jsonl").exists()
    (tmp_path / "p.jsonl").write_text('{"pair_id": "1", "question": "What?", "answer": "stop"}\n')
    (tmp_path / "a.jsonl").write_text('{"pair_id": "1", "text": "stop"}\n')
    answers = ("--teacher-answers", tmp_path / "a.jsonl", "--student-answers", tmp_path / "a.jsonl")
    files = ("--pairs", tmp_path / "p.jsonl", *answers, "--task", "vqa", "--out", tmp_path / "v.jsonl")
    assert told("identify", *files) == {"out": str(tmp_path / "v.jsonl"), "verdicts": {"student_right": 1}}


def test_an_error_is_told_with_the_exit_status_and_once_more_in_words(project):
    config = configure(project, teacher="fak:x")
    result = parityalign("run", config, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == found["exit_status"] == 2
    assert "no kind of model 'fak'" in found["error"] and found["error"] in result.stderr
    table(project / "teacher.json", [])
    (project / "teacher.json").write_text(json.dumps({"replies": [{"text": "I cannot see images."}]}))
    failed = parityalign("run", configure(project), "--json")
    assert failed.exit_code == json.loads(failed.stdout)["exit_status"] == 1


def test_what_libraries_print_meanwhile_is_not_on_standard_output(tmp_path):
    code = (
        "import sys; from parityalign import stages; from parityalign.cli import app;"
        "stages.score_file = lambda *given: (print('a library says hello'), [{'score': 1.0}])[1];"
        "sys.argv = ['parityalign', 'score', 'anls', 'none.jsonl', '--json']; app.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["mean"] == 1 and "a library says hello" in ended.stderr


def test_numbers_that_json_has_not_are_null():
    assert as_values({"a": [float("inf"), 1.5, True, None], 2: {"b": (1,)}}) == {
        "a": [None, 1.5, True, None],
        "2": {"b": [1]},
    }
