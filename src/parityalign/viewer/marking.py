"""A person's marks on the pairs of a run: read from the file that `review` names, and added to it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import NamedTuple

from parityalign.config import RunConfig
from parityalign.core import Row, UserError, content_id
from parityalign.report import read_records
from parityalign.stages import REVIEWED, Mark, append_marks, mark_in, read_review

UNCONFIGURED = "review.jsonl"
"""The file in the run folder where marks go if the configuration names none."""
_NONE: Mapping[str, Mark] = MappingProxyType({})


class Marked(NamedTuple):
    """What a person says of one pair."""

    mark: Mark
    pending: bool
    """Whether the verdicts do not have it yet: the next run applies it."""


class MarkedMeanwhile(Exception):
    """Somebody else has marked the pair since the page was made.

    Attributes:
        mark: What they said.
    """

    def __init__(self, mark: Mark) -> None:
        super().__init__(mark.mark)
        self.mark = mark


class Marks:
    """The marks of one run.

    Attributes:
        path: The file.
        configured: Whether the run's configuration names it.
        problem: Why the file cannot be read, in words; empty if it can.
    """

    def __init__(self, run: Path, config: RunConfig | None) -> None:
        self._run = run
        self._lock = Lock()
        self._seen: object = None
        self._said = self._applied = _NONE
        self.problem = ""
        self.follow(config)

    def follow(self, config: RunConfig | None) -> None:
        """Looks where this configuration says."""
        named = config.review if config else None
        self.configured = named is not None
        self.path = named or self._run / UNCONFIGURED

    @property
    def advice(self) -> str:
        """What a person has to do for the marks to count; empty: nothing."""
        if self.configured:
            return ""
        return f"The run names no file of marks. To have yours applied, write in its RUN.yaml: review: {self.path}"

    def refresh(self) -> bool:
        """Reads the marks again if a file changed; whether it did."""
        with self._lock:
            state = (self.path, _state(self.path), _state(self._run / "verdicts" / REVIEWED))
            if state == self._seen:
                return False
            self._seen = state
            self._read()
            return True

    def of(self, pair_id: str) -> Marked | None:
        """The mark of a pair; None: nobody marked it."""
        said, applied = self._said.get(pair_id), self._applied.get(pair_id)
        mark = said or applied
        changing = said if said and said.mark != "keep" else None
        return Marked(mark, changing != applied) if mark else None

    def rows(self) -> Iterator[tuple[str, str, str | None, str, bool]]:
        """All of them, for the index."""
        for pair_id in {**self._applied, **self._said}:
            if found := self.of(pair_id):
                yield pair_id, found.mark.mark, found.mark.answer, found.mark.note, found.pending

    def add(self, said: Mapping[str, str], seen: str) -> Mark:
        """Adds a mark to the file; on the disk when this returns.

        Args:
            said: As a line of the file has it.
            seen: The `version_of` the pair's mark on the page where this one was made.

        Raises:
            UserError: It is no mark, or the file cannot be read.
            WorkFailed: The disk refused.
            MarkedMeanwhile: The pair has another mark by now.
        """
        mark = mark_in(Row("this mark", said))
        self.refresh()
        with self._lock:
            if self.problem:
                raise UserError(self.problem)
            before = self._said.get(mark.pair_id)
            if before and version_of(before) != seen:
                raise MarkedMeanwhile(before)
            append_marks(self.path, [mark])
        return mark

    def _read(self) -> None:
        try:
            self._said = read_review(self.path).marks if self.path.exists() else _NONE
            applied = read_records(self._run / "verdicts" / REVIEWED, Mark)
            self._applied = {mark.pair_id: mark for mark in applied}
            self.problem = ""
        except UserError as problem:
            self.problem = str(problem)


def version_of(mark: Mark | None) -> str:
    """Tells a mark from another on the same pair, in ASCII, which no page rewrites; empty for none."""
    return content_id(mark.model_dump_json()) if mark else ""


def _state(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns
