"""Progress is lively on a terminal and sparse in a log; tables lose nothing where there is little room."""

from io import StringIO

import pytest
from rich.console import Console

from parityalign.cli.tables import table
from parityalign.pipeline.progress import shown_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets; in seconds."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def log(width: int = 200) -> Console:
    return Console(file=StringIO(), width=width)


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
    console = Console(file=StringIO(), width=80, force_terminal=True)
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
    console.print(table(["task", "metric", "n", "before", "gain"], [row], texts=2))
    shown = "".join(console.file.getvalue().split())
    assert "…" not in shown
    for part in ("1,200", "62.0", "65.1]", "+15.6]"):
        assert part in shown


def test_a_notebook_gets_lines_of_text(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a kernel does
    with shown_progress() as progress:
        progress("annotate", 10, 10)
    assert capsys.readouterr().out == "annotate: 10 of 10\n"
