"""Shows the progress of a run: bars on a terminal, else plain lines."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.prompt import Confirm
from rich.segment import Segment
from rich.text import Text

from parityalign.core import Progress as Report
from parityalign.core import printable

SECONDS_BETWEEN_LINES = 5.0
"""Seconds between two lines of one step, if the console is not a terminal."""


@contextmanager
def shown_progress(console: Console | None = None) -> Iterator[Report]:
    """Shows the steps of a run inside the `with`, in the style for the console; None: standard output."""
    console = console or plain_console()
    if not console.is_terminal:
        yield PlainLines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        yield Bars(bars)


class Bars:
    """One bar per step, with the remaining time."""

    def __init__(self, bars: Progress) -> None:
        """Takes the bars, which the caller starts and stops."""
        self._bars = bars
        self._ids: dict[str, TaskID] = {}

    def __call__(self, step: str, done: int, total: int) -> None:
        """Updates the bar of a step; a new step gets a bar."""
        if step not in self._ids:
            self._ids[step] = self._bars.add_task(printable(step), total=total, detail="")
        self._bars.update(self._ids[step], completed=done, total=total)

    def detail(self, step: str, text: str) -> None:
        """Shows a text behind the bar of a step that has one."""
        if step in self._ids:
            self._bars.update(self._ids[step], detail=printable(text))

    def say(self, text: str) -> None:
        """Writes a line above the bars."""
        self._bars.console.print(printable(text), markup=False)

    def confirm(self, question: str) -> bool:
        """Asks on the terminal, if there is anybody to type."""
        if not sys.stdin.isatty():
            return True
        self._bars.stop()
        try:
            return Confirm.ask(Text(printable(question)), console=self._bars.console, default=False)
        finally:
            self._bars.start()


class PlainLines:
    """A line every few seconds and at the end of each step, for log files and pipes."""

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
        detail = f"; {seen.detail}" if seen.detail else ""
        self._console.print(f"{step}: {done:,} of {total:,}{seen.outlook(now, done, total)}{detail}")

    def detail(self, step: str, text: str) -> None:
        """Has the next lines of a step end with a text."""
        if step in self._steps:
            self._steps[step].detail = printable(text)

    def say(self, text: str) -> None:
        """Writes a line."""
        self._console.print(printable(text), markup=False)

    def confirm(self, question: str) -> bool:
        """Yes: nobody watches."""
        return True


class _Step:
    """The times of a step's start and last line."""

    def __init__(self, now: float, done: int) -> None:
        self.began, self.told, self.ended = now, now, False
        self.detail = ""
        self._done_before = done  # a resumed step starts with the work of an earlier process

    def outlook(self, now: float, done: int, total: int) -> str:
        """The time it took, or the remaining time at the pace so far."""
        spent = now - self.began
        if done >= total:
            return f", took {_clock(spent)}" if spent >= 1 else ""
        fresh = done - self._done_before
        return f", about {_clock(spent * (total - done) / fresh)} left" if fresh > 0 else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class PlainConsole(Console):
    """Prints text as it is, but for what a terminal would obey: no markup, no emoji codes, no colours for numbers."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of rich
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - those of rich
        """A text, as it is measured and printed."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Whatever else is printed, in pieces; rich's own control sequences are pieces of their own, and stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


def plain_console() -> Console:
    """A console for results and progress; a log file has no width, so nothing is cut off or folded in it.

    A notebook is written to like a log file, although its kernel sets FORCE_COLOR: it shows no moving bars.
    """
    console = PlainConsole()
    if console.is_terminal and not console.is_jupyter:
        return console
    return PlainConsole(force_terminal=False, force_jupyter=False, width=200)
