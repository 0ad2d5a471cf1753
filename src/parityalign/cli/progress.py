"""How a run looks on the terminal: bars with the time left, or plain lines where nobody watches, and the result.

Everything is written to the console that `cli.py` hands in.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from parityalign.core import Progress as Report

SECONDS_BETWEEN_LINES = 5.0
"""Of one step, where the console is no terminal."""


@contextmanager
def progress(console: Console) -> Iterator[Report]:
    """Shows the steps of a run while the `with` lasts, in the way that suits the console."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as bars:
        yield Bars(bars)


class Bars:
    """One bar a step, each with the time that is left."""

    def __init__(self, bars: Progress) -> None:
        """Draws on `bars`, which the caller starts and stops."""
        self._bars = bars
        self._ids: dict[str, TaskID] = {}

    def __call__(self, step: str, done: int, total: int) -> None:
        """Moves the bar of a step; a step that is new gets a bar."""
        if step not in self._ids:
            self._ids[step] = self._bars.add_task(escape(step), total=total)
        self._bars.update(self._ids[step], completed=done, total=total)


class PlainLines:
    """A line every few seconds, and one when a step is done: for log files and pipes."""

    def __init__(self, console: Console) -> None:
        """Writes to `console`."""
        self._console = console
        self._steps: dict[str, _Step] = {}

    def __call__(self, step: str, done: int, total: int) -> None:
        """Writes a line if the last one of this step is old enough or the step is done."""
        now = time.monotonic()
        seen = self._steps.setdefault(step, _Step(now, done))
        if seen.ended or (done < total and now - seen.told < SECONDS_BETWEEN_LINES):
            return
        seen.told, seen.ended = now, done >= total
        self._console.print(f"{step}: {done:,} of {total:,}{seen.outlook(now, done, total)}", markup=False)


class _Step:
    """When a step began and when it was last told of."""

    def __init__(self, now: float, done: int) -> None:
        self.began, self.told, self.ended = now, now, False
        self._done_before = done  # a resumed step starts with what an earlier process did

    def outlook(self, now: float, done: int, total: int) -> str:
        """How long it took, or how long it will take at the pace so far."""
        spent = now - self.began
        if done >= total:
            return f", took {_clock(spent)}" if spent >= 1 else ""
        fresh = done - self._done_before
        return f", about {_clock(spent * (total - done) / fresh)} left" if fresh > 0 else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> Table:
    """A table of plain text; its first `texts` columns are words, which may be folded, the others numbers."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, heading in enumerate(headings):
        if place < texts:
            drawn.add_column(escape(heading), overflow="fold")
        else:
            drawn.add_column(escape(heading), justify="right")
    for row in rows:
        drawn.add_row(*map(escape, row))
    return drawn


def show_table(
    console: Console, caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int
) -> None:
    """A table below its caption, with an empty line after it; the caption alone where there is no row."""
    console.print(caption, markup=False, soft_wrap=True)
    if rows:
        console.print(table(headings, rows, texts=texts))
    console.print()


def counted(counts: Mapping[str, int]) -> str:
    """Counts in one line, such as `gaps 12, pairs 3,400`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
