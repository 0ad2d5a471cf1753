"""What a run at work leaves in its folder for whoever looks at it: the step it is at, and what training measures."""

import json
import math
import time
from contextlib import suppress

from parityalign.core import HALF_WRITTEN, MEASURED, WORKING, Details, Progress, RunFolder, Says

SECONDS_BETWEEN = 1.0
"""Between two times that the step is written down."""


class Recorded:
    """A progress that is also written down; the file of the step is for the moment, and is never waited for."""

    def __init__(self, folder: RunFolder, watching: Progress) -> None:
        """Writes into a locked folder; whoever watches is told as before."""
        self._folder, self._watching = folder, watching
        self._file = folder.path / WORKING
        self._step, self._detail, self._began, self._before, self._written = "", "", 0.0, 0, 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        """Tells a step, and writes it down if the last time is long enough ago."""
        self._watching(step, done, total)
        now = time.monotonic()
        if step != self._step:
            self._step, self._detail, self._began, self._before, self._written = step, "", now, done, 0.0
        if now - self._written < SECONDS_BETWEEN:
            return
        self._written = now
        took = round(now - self._began, 1)
        said = {"step": step, "done": done, "total": total, "done_before": self._before, "seconds": took}
        said |= {"detail": self._detail}
        part = self._file.with_name(WORKING + HALF_WRITTEN)
        with suppress(OSError):  # a disk that refuses is told of where something would be lost
            part.write_text(json.dumps(said), encoding="utf-8")
            part.replace(self._file)

    def say(self, text: str) -> None:
        """Tells a line, if whoever watches takes it."""
        if isinstance(self._watching, Says):
            self._watching.say(text)

    def detail(self, step: str, text: str) -> None:
        """Shows how fast a step goes, if whoever watches takes that."""
        if step == self._step:
            self._detail = text
        if isinstance(self._watching, Details):
            self._watching.detail(step, text)

    def confirm(self, question: str) -> bool:
        """Asks whoever watches; where nobody can answer, yes."""
        return not isinstance(self._watching, Says) or self._watching.confirm(question)

    def measured(self, what: str, step: int, value: float) -> None:
        """Adds what training measured to the run's events."""
        self._folder.event(MEASURED, what=what, step=step, value=value if math.isfinite(value) else None)

    def end(self) -> None:
        """Nothing is at work any more."""
        self._file.unlink(missing_ok=True)
