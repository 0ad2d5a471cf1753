"""`parityalign chat`: one's own pictures and questions to the models of a run, in the terminal."""

import json
from shutil import copytree

import pytest
from typer.testing import CliRunner

from conftest import replace_levelling
from makers import content
from parityalign.cli.app import app
from projects import configure, done, make_project, parityalign, refusal
from serving import reply, serving


@pytest.fixture(scope="module")
def done_once(tmp_path_factory):
    """A project on fake models whose run is finished."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        replace_levelling(patch)
        done("run", configure(project))
    return project


@pytest.fixture
def project(done_once, tmp_path, trainable):
    return copytree(done_once, tmp_path / "project")


def chat(project, *options, lines=()):
    arguments = ["chat", str(project / "runs/a"), *map(str, options)]
    return CliRunner().invoke(app, arguments, input="".join(f"{line}\n" for line in lines))


def test_each_model_answers_a_question_about_a_picture_and_nothing_in_the_run_changes(project):
    before = content(project / "runs/a")
    picture = project / "pool" / "bank.png"  # which the student has wrong before
    found = chat(project, "--picture", picture, "--question", "What is written?", "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)["answers"]
    assert [(each["model"], each["text"]) for each in told] == [
        ("before", "nothing"),
        ("after", "bank"),
        ("teacher", "bank"),
    ]
    assert {(each["picture"], each["question"], each["task"]) for each in told} == {
        (str(picture), "What is written?", "textvqa")
    }
    text = chat(project, "--picture", picture, "--question", "What is written?").stdout
    assert [line.split("   (")[0] for line in text.splitlines()] == ["before: nothing", "after: bank", "teacher: bank"]
    assert content(project / "runs/a") == before


def test_pictures_and_questions_are_typed_until_nothing_is(project):
    bank, cafe = project / "pool" / "bank.png", project / "pool" / "cafe.png"
    lines = [f"'{bank}'", "What is it?", "What is there?", "", project / "none.png", cafe, "What is it?", "", ""]
    found = chat(project, "--of", "teacher", lines=lines)
    assert found.exit_code == 0, found.output
    assert found.stdout.count("teacher: bank") == 2 and found.stdout.count("teacher: cafe") == 1
    assert "none.png is no picture that can be used: " in found.stderr
    ended = chat(project, "--of", "teacher", lines=[bank, "What is it?"])  # the input ends
    assert ended.exit_code == 0 and "teacher: bank" in ended.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--picture", "none.png", "--question", "What?"], "none.png is no picture that can be used"),
        (["--of", "techer"], "there is no model 'techer' in a run. Did you mean teacher"),
        (["--task", "textvq"], "the run has no task 'textvq'. Did you mean textvqa"),
        (["--json"], "chat --json asks nobody: give --picture and --question"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(project, options, said):
    found = chat(project, *options)
    assert found.exit_code == 2 and said in found.stderr and "Traceback" not in found.output


def test_a_run_that_is_no_run_is_refused(tmp_path):
    assert "run.yaml" in refusal("chat", tmp_path)


def test_without_a_levelled_student_the_two_others_are_asked(project):
    (project / "runs/a/student/manifest.json").unlink()
    picture = ["--picture", project / "pool" / "bank.png", "--question", "What is written?"]
    found = chat(project, *picture)
    assert found.exit_code == 0 and "no student after levelling yet" in found.stderr
    assert "before: nothing" in found.stdout and "teacher: bank" in found.stdout and "after:" not in found.stdout
    asked = chat(project, *picture, "--of", "after")
    assert asked.exit_code == 1 and "after: there is no student after levelling: nothing was levelled" in asked.stderr


def test_what_a_served_teacher_says_is_shown_with_controls_written_out_and_its_faults_in_words(project):
    async def script(body, before):
        return reply("\x1b[31mbank\x07", usage=(10 + len(str(body)), 2))

    picture = ["--picture", project / "pool" / "bank.png", "--question", "What is written?", "--of", "teacher"]
    with serving(script) as served:
        text = (project / "runs/a/run.yaml").read_text()
        kept = next(line for line in text.splitlines() if line.startswith("teacher:"))
        text = text.replace(kept, f"teacher: {served.url}#m").replace("backoff: 1.0", "backoff: 0.001")
        (project / "runs/a/run.yaml").write_text(text.replace("max_attempts: 8", "max_attempts: 2"))
        shown = chat(project, *picture)
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.stdout and "bank" in shown.stdout
    gone = chat(project, *picture)  # the server is no more
    assert gone.exit_code == 1 and "gave no answer to a question" in gone.stderr and "Traceback" not in gone.output


def test_the_command_is_in_the_help():
    assert "chat" in parityalign("--help").stdout
