"""What somebody types first and reads last: help, version, completion, a first configuration, settings, five lines."""

import os
import re
import subprocess
import sys
from io import StringIO

import click
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

import parityalign
from makers import speckle
from parityalign.cli.app import app
from parityalign.cli.show import show_result
from parityalign.cli.tables import show_rows
from parityalign.config import load_config, split_model
from parityalign.core import UserError
from parityalign.pipeline.progress import PlainConsole
from parityalign.report.closing import closing_lines, score_tables
from parityalign.stages import STAGES
from projects import done, refusal
from test_report import SCORED, run  # noqa: F401 - a fixture

COMMANDS = get_command(app).commands


def test_the_version_is_told_and_nothing_else_is_done():
    assert done("--version") == f"parityalign {parityalign.__version__}\n"


def test_help_begins_with_what_begins_a_run_and_goes_through_it():
    """Commands of other packages may stand among the stages."""
    known = set("init demo doctor plan preview run status view report score export chat answers".split())
    listed = [name for name in COMMANDS if name in known | {stage.name for stage in STAGES}]
    assert listed[:6] == ["init", "demo", "doctor", "plan", "preview", "run"]
    assert listed[6:12] == ["intake", "annotate", "identify", "discrepancy", "level", "evaluate"]
    assert set(listed[12:]) == known - set(listed[:6])


@pytest.mark.parametrize("shell", ["bash", *(pytest.param(shell, marks=pytest.mark.long) for shell in ("zsh", "fish"))])
def test_a_shell_completes_commands(shell):
    asked = {"bash": "complete_bash", "zsh": "complete_zsh", "fish": "complete_fish"}[shell]
    words = {"COMP_WORDS": "parityalign prev", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "parityalign prev"}
    words |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_PARITYALIGN_COMPLETE": asked}
    code = "import sys; sys.argv = ['parityalign']; from parityalign.cli import main; main()"
    told = subprocess.run([sys.executable, "-c", code], env={**os.environ, **words}, capture_output=True, text=True)
    assert "preview" in told.stdout and "export" not in told.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example_with_options_that_there_are(name):
    command = COMMANDS[name]
    examples = re.findall(r"parityalign (.+)", command.epilog or "")
    assert examples and all(example.split()[0] == name for example in examples)
    known = {option for each in command.params for option in each.opts}
    for example in examples:
        _, *words = example.split()
        assert {word for word in words if word.startswith("--")} <= known
        command.make_parser(click.Context(command)).parse_args(words)
    assert examples[0] in " ".join(done(name, "--help").split())


# A first configuration


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    speckle(tmp_path / "photos" / "1.png", seed=1)
    return tmp_path


def test_a_first_configuration_is_asked_for_and_can_be_loaded(photos):
    answers = "photos\nembedded:teacher\nembedded:student\n"
    told = CliRunner().invoke(app, ["init", "SIGNS.yaml"], input=answers)
    assert told.exit_code == 0 and "next: parityalign plan SIGNS.yaml" in told.stdout
    config = load_config(photos / "SIGNS.yaml")
    assert (config.run.name, config.teacher, config.student) == ("signs", "embedded:teacher", "embedded:student")
    assert config.tasks["mine"].images == (str(photos / "photos"),)


def test_options_answer_in_advance_and_what_is_wrong_leaves_no_file(photos):
    models = ("--teacher", "embedded:teacher", "--student", "embedded:student")
    assert "does not exist" in refusal("init", "--images", "pictures", *models)
    assert not (photos / "RUN.yaml").exists()
    done("init", "--images", "photos", *models)
    before = (photos / "RUN.yaml").read_text()
    assert "RUN.yaml is there already" in refusal("init", "--images", "photos", *models)
    assert (photos / "RUN.yaml").read_text() == before


def test_answers_that_look_like_yaml_are_text(photos):
    speckle(photos / "on #b" / "1.png", seed=2)
    done("init", "--images", "on #b", "--teacher", "embedded:teacher", "--student", "embedded:student")
    assert yaml.safe_load((photos / "RUN.yaml").read_text())["tasks"]["mine"]["images"] == "on #b"


# One setting


@pytest.fixture
def configured(photos):
    done("init", "--images", "photos", "--teacher", "embedded:teacher", "--student", "embedded:student")
    return photos / "RUN.yaml"


def test_a_setting_of_the_command_line_takes_the_place_of_the_file_s(configured):
    changes = ["level.epochs=3", "level.lr_multipliers={vision: 0}", "tasks.mine.images=[photos]", "seed=7"]
    config = load_config(configured, changes=changes)
    assert (config.level.epochs, config.level.lr_multipliers.vision, config.seed) == (3, 0.0, 7)
    assert load_config(configured).seed != 7


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("level.epoch=3", "1 problem\n  - unknown setting 'level.epoch'. Did you mean epochs"),
        ("level.epochs=many", "'level.epochs' is 'many'"),
        ("level.epochs", "write SETTING=VALUE, such as level.epochs=3"),
        ("=3", "write SETTING=VALUE"),
        ("level..epochs=3", "write SETTING=VALUE"),
        ("teacher.name=3", "'teacher' is 'embedded:teacher' and has no settings in it"),
        ("level.epochs=[", "is no value in YAML"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(configured, change, told):
    message = refusal("run", configured, "--dry-run", "--set", change)
    assert told in message and message.count("\n") <= 6


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", "hf:Qwen/Qwen2-VL-2B-Instruct"),
        ("./models/mine", "hf:./models/mine"),
        ("localhost:8000/v1#qwen", "http://localhost:8000/v1#qwen"),
        ("student", "embedded:student"),
    ],
)
def test_a_model_without_its_kind_is_answered_with_what_is_meant(spec, meant):
    with pytest.raises(UserError, match=re.escape(f"Did you mean {meant}?")):
        split_model(spec)


MEANT = {
    "ShareGPT": "llava",
    "llama-factory": "messages",
    "datasets": "hf-dataset",
    "lmmseval": "lmms-eval",
    "evaluation-logs": "evaluation-log",
}


@pytest.mark.parametrize("form", MEANT)
def test_an_export_format_of_another_name_is_answered_with_the_one_that_is_meant(configured, form):
    message = refusal("export", configured.rename(configured.with_name("run.yaml")).parent, "--format", form)
    assert f"Did you mean {MEANT[form]}" in message
    assert "evaluation-log, hf-dataset, llava, lmms-eval, messages, trl" in message


# The end of a run


def printed(width: int, told: object) -> str:
    console = PlainConsole(file=StringIO(), width=width, force_terminal=True, color_system=None)
    told(console)
    return console.file.getvalue()


def test_a_run_ends_in_five_lines_that_count(run):  # noqa: F811
    lines = closing_lines(run, SCORED, details=False)
    assert [line.label for line in lines] == ["result", "gain", "report", "next"]
    assert lines[0].text.startswith("student before 35.6, student after 56.0, teacher 88.5 (mean score of 2 tasks")
    assert lines[1].text.startswith("The student gained 20.4 points on average [17.5, 23.2]")
    assert str(run / "report.html") in lines[2].text and "--details" in lines[3].text
    assert "--details" not in closing_lines(run, SCORED, details=True)[-1].text


@settings(max_examples=50, deadline=None)
@given(
    width=st.integers(60, 140),
    rows=st.lists(
        st.tuples(
            st.sampled_from(["textvqa", "a task of one's own"]),
            st.sampled_from(["ANLS", "ChartQA relaxed accuracy", ""]),
            *[st.sampled_from(["45.8 [29.8, 61.7]", "1,200", "-", "100.0 [100.0, 100.0]"])] * 5,
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_no_word_of_a_table_is_broken_and_none_is_lost(width, rows):
    headings = ("task", "metric", "questions", "before", "after", "teacher", "pairs it had right")
    shown = printed(width, lambda console: show_rows(console, headings, rows, texts=2))
    assert max(map(len, shown.splitlines())) <= width
    whole = {word.strip(";") for word in shown.split()}
    assert {word for row in rows for cell in row for word in cell.split()} <= whole


def test_at_eighty_columns_the_end_of_a_run_breaks_no_word(run):  # noqa: F811
    (run / "scores.json").write_text(SCORED.model_dump_json())
    shown = printed(80, lambda console: show_result(console, run, ["textvqa", "chartqa"], details=True))
    expected = [line.text for line in closing_lines(run, SCORED, details=True)]
    expected += [cell for table in score_tables(SCORED) for row in table.rows for cell in row]
    whole = {word.strip(";") for word in shown.split()}
    assert {word.strip(";") for text in expected for word in text.split()} <= whole


def test_colours_are_for_terminals(run):  # noqa: F811
    lively = PlainConsole(file=StringIO(), width=80, force_terminal=True, color_system="standard")
    log = PlainConsole(file=StringIO(), width=200)
    for console in (lively, log):
        show_result(console, run, ["textvqa"])
    assert "\x1b[1;36mresult\x1b[0m" in lively.file.getvalue()
    assert "\x1b" not in log.file.getvalue() and "\nreport: " in log.file.getvalue()
