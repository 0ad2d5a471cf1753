"""Progress is lively on a terminal and sparse in a log; tables lose nothing where there is little room.

Whatever a model, a server or a file says is shown there and never obeyed; whoever stops the program is answered in one
line.
"""

import json
import subprocess
import sys
import unicodedata
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityalign.cli.show import show_status
from parityalign.cli.tables import show_rows, show_table
from parityalign.cli.terminal import say
from parityalign.core.plain_text import printable
from parityalign.pipeline import WaitingJob
from parityalign.pipeline.progress import PlainConsole, shown_progress

HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202eexe.\u2066\r\x08[red]x[/red] :warning: \ud800"
SHOWN = r"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202eexe.\u2066\x0d\x08[red]x[/red] :warning: \ud800"


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets; in seconds."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def log(width: int = 200) -> PlainConsole:
    return PlainConsole(file=StringIO(), width=width)


def test_a_job_that_was_cut_off_while_it_was_handed_in_has_no_name_to_tell():
    console = log(400)
    job = WaitingJob("annotate", "http://somewhere#m", "", 7, "", 0, "2026-01-01 10:00")
    show_status(console, [], [job, job._replace(job="batch_0", told="in_progress", done=3)])
    cut_off, known = console.file.getvalue().splitlines()[-2:]
    assert "(cut off while they were handed in); the same" in cut_off
    assert "(job batch_0: in_progress, 3 done when looked at last); the same" in known


def test_a_long_step_gets_a_line_every_few_seconds_with_the_time_left(clock):
    console = log()
    with shown_progress(console) as progress:
        for done in range(0, 101, 2):
            clock[0] = done / 5
            progress("annotate", done, 100)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "annotate: 26 of 100, about 0:15 left"
    assert lines[-1] == "annotate: 100 of 100, took 0:20"
    assert len(lines) == 4


def test_a_short_step_gets_one_line(clock):
    console = log()
    with shown_progress(console) as progress:
        progress("annotate", 5, 10)
        progress("annotate", 10, 10)
        progress("annotate", 10, 10)
    assert console.file.getvalue() == "annotate: 10 of 10\n"


def test_the_time_left_of_a_resumed_step_is_told_from_the_new_work_only(clock):
    console = log()
    with shown_progress(console) as progress:
        progress("annotate", 9000, 10000)
        clock[0] = 10.0
        progress("annotate", 9100, 10000)
    assert console.file.getvalue() == "annotate: 9,100 of 10,000, about 1:30 left\n"


def test_hours_are_told_as_such(clock):
    console = log()
    with shown_progress(console) as progress:
        progress("level", 0, 1000)
        clock[0] = 60.0
        progress("level", 10, 1000)
    assert "about 1:39:00 left" in console.file.getvalue()


def test_a_terminal_shows_a_bar_for_each_step():
    console = PlainConsole(file=StringIO(), width=80, force_terminal=True)
    with shown_progress(console) as progress:
        progress("annotate [a]", 1, 4)
        progress("identify", 2, 4)
        progress("annotate [a]", 4, 4)
    shown = console.file.getvalue()
    assert "annotate [a]" in shown
    assert "identify" in shown
    assert "4/4" in shown


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_loses_nothing_where_there_is_little_room(width):
    console = log(width)
    row = ["chartqa", "chartqa_relaxed_accuracy", "1,200", "62.0 [58.9, 65.1]", "[+12.3, +15.6]"]
    show_rows(console, ["task", "metric", "n", "before", "gain"], [row], texts=2)
    shown = console.file.getvalue()
    assert "…" not in shown and max(map(len, shown.splitlines())) <= width
    for part in ("1,200", "62.0", "65.1]", "+15.6]"):
        assert part in shown


def test_a_notebook_gets_lines_of_text(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a kernel does
    with shown_progress() as progress:
        progress("annotate", 10, 10)
    assert capsys.readouterr().out == "annotate: 10 of 10\n"


# Nothing is obeyed


def obeyed(text: str) -> set[str]:
    """What a terminal acts upon, but for line ends and tabs."""
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t\x7f"} | {
        char for char in text if unicodedata.bidirectional(char) in turns
    }


@given(st.text(st.characters(categories=["L", "Cc", "Cf", "Cs", "P"])))
def test_a_text_keeps_everything_but_what_would_be_obeyed(text):
    assert not obeyed(printable(text))
    assert printable(printable(text)) == printable(text)
    if not obeyed(text) and not set(text) & set("\u061c\u200e\u200f"):
        assert printable(text) == text


def test_lines_errors_and_a_pipe_of_another_encoding_take_any_text(capsys):
    say(HOSTILE)
    say(HOSTILE, error=True)
    assert capsys.readouterr() == (SHOWN + "\n", SHOWN + "\n")


def test_tables_and_captions_show_markup_emoji_codes_and_controls_as_they_were_written():
    console = PlainConsole(file=StringIO(), width=400)
    show_table(console, HOSTILE, [HOSTILE, "n"], [[HOSTILE, "1"]], texts=1)
    console.print(HOSTILE)
    assert console.file.getvalue().count(SHOWN) == 4
    assert not obeyed(console.file.getvalue())


@pytest.mark.parametrize("lively", [True, False])
def test_the_name_of_a_step_is_shown_and_only_the_bars_move_the_cursor(lively):
    shown = {}
    for name in (HOSTILE, "intake"):
        console = PlainConsole(file=StringIO(), width=400, force_terminal=lively)
        with shown_progress(console) as progress:
            progress(name, 1, 1)
        shown[name] = console.file.getvalue()
    assert r"\x1b]52;c;" in shown[HOSTILE] and "[red]x[/red] :warning:" in shown[HOSTILE]
    for control in ("\x1b]", "\x07", "\x1b[31m", "\x9b", "\u202e", "\x08"):
        assert control not in shown[HOSTILE]
    assert shown["intake"].startswith("\x1b") == lively


TRACEBACK = """
from parityalign.cli.terminal import say_everything_so
say_everything_so()
import warnings
warnings.warn("\\x1b[31mwarned")
raise ValueError("\\x1b[31m\\udcff")
"""


def program(code: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, **options)


def test_warnings_and_tracebacks_are_printed_in_the_same_way():
    told = program(TRACEBACK).stderr
    assert r"UserWarning: \x1b[31mwarned" in told and r"ValueError: \x1b[31m\udcff" in told and not obeyed(told)


# Whoever stops the program

STARTING = """
import contextlib, signal, parityalign
from parityalign.__main__ import main
class Importing:
    def main():
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        print("went on")
signal.signal(signal.SIGINT, signal.default_int_handler)
parityalign.cli = Importing
main()
"""


def test_an_interrupt_while_modules_are_imported_is_one_line():
    stopped = program(STARTING)
    assert (stopped.returncode, stopped.stdout) == (130, "")
    assert stopped.stderr == "parityalign: interrupted while starting. Nothing was changed.\n"


def test_an_interrupt_that_whoever_started_the_program_wants_ignored_is_ignored():
    started = program(STARTING.replace("default_int_handler", "SIG_IGN"))
    assert (started.returncode, started.stdout, started.stderr) == (0, "went on\n", "")


def piped(lines: int, reader: str, folder) -> tuple[str, str]:
    """What the reader and the errors say of `parityalign score ... | reader`, which ends early."""
    row = json.dumps({"prediction": "stop", "answers": ["stop"]}) + "\n"
    (folder / "rows.jsonl").write_text(row * lines)
    command = f"{{ {sys.executable} -m parityalign score anls {folder / 'rows.jsonl'}; echo $? >&2; }} | {reader}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    return done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipe")
def test_a_reader_that_ends_early_is_no_error_in_many_words(tmp_path):
    shown, told = piped(20_000, "head -n 1", tmp_path)
    assert json.loads(shown)["score"] == 1 and told == "1\n"
    assert piped(1, "true", tmp_path) in [("", "0\n"), ("", "1\n")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("lines", [1, pytest.param(20_000, marks=pytest.mark.long)])
def test_an_output_that_is_full_is_told_in_a_line(tmp_path, lines):
    _, told = piped(lines, "true", tmp_path)  # writes the rows
    command = [sys.executable, "-m", "parityalign", "score", "anls", str(tmp_path / "rows.jsonl")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "parityalign: cannot write the output: No space left on device\n"
