"""A run folder that is looked at: its index, read again in the background when the run has gone on."""

import os
import threading
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from parityalign.config import RunConfig, read_config
from parityalign.core import CONFIG, UserError, listing_digest
from parityalign.viewer.marking import Marks
from parityalign.viewer.reading import files_read, read_run
from parityalign.viewer.tables import Index

_RETRIED_AFTER = 30.0
"""Seconds until a folder that could not be read is read again, though none of its files has changed."""


class WatchedRun:
    """One run folder.

    Attributes:
        path: The folder.
        name: As pages call it.
        config: Its configuration; None where that cannot be read.
        marks: A person's marks on its pairs.
        fault: Why the folder could not be read when that was last tried, in words; empty: it could.
    """

    def __init__(self, path: Path) -> None:
        """Begins to read it; nothing is waited for.

        Raises:
            UserError: It is not a run folder.
        """
        self.path = Path(os.path.abspath(path))
        if not (self.path / CONFIG).is_file():
            raise UserError(f"{path} is not a run folder: it has no {CONFIG}. Begin with: parityalign run RUN.yaml")
        self.name = self.path.name
        self.config, self._config_problem = _config_in(self.path)
        self.marks = Marks(self.path, self.config)
        self._scratch = TemporaryDirectory(prefix="parityalign-view-")
        self._numbers = count()
        self._lock = threading.Lock()
        self._reading: threading.Thread | None = None
        self._seen = self.fault = ""
        self._failed_at = 0.0
        self._index: Index | None = None
        self.index()

    @property
    def problems(self) -> list[str]:
        """What of the run could not be read, in words."""
        index = self._index
        own = filter(None, (self._config_problem, self.marks.problem, self.fault))
        return [*own, *(index.problems if index else ())]

    @property
    def reads_again(self) -> bool:
        """Whether what is shown is older than the folder, which is being read again."""
        return self._index is not None and self._reading is not None and self._reading.is_alive()

    def index(self) -> Index | None:
        """The index as it is; None while there is none. One is made anew when a file of the run has changed, and some
        time after that has failed."""
        with self._lock:
            state = listing_digest(files_read(self.path), self.path)
            retries = bool(self.fault) and time.monotonic() - self._failed_at >= _RETRIED_AFTER
            if (retries or state != self._seen) and not (self._reading and self._reading.is_alive()):
                self._seen = state
                self._reading = threading.Thread(target=self._read, daemon=True)
                self._reading.start()
            index = self._index
            if index and self.marks.refresh():
                index.replace_marks(self.marks.rows())
        return index

    def wait(self) -> None:
        """Waits until what was begun to be read is read."""
        if self._reading:
            self._reading.join()

    def close(self) -> None:
        """Removes what was made elsewhere."""
        self.wait()
        self._scratch.cleanup()

    def _read(self) -> None:
        try:
            self._make_index()
            self.fault = ""
        except Exception as fault:  # noqa: BLE001 - whatever a folder that is no longer whole leads to: pages say it
            self._failed_at = time.monotonic()
            self.fault = f"The run folder could not be read: {type(fault).__name__}: {fault}"

    def _make_index(self) -> None:
        made = Index(Path(self._scratch.name) / f"{next(self._numbers)}.sqlite")
        config, problem = _config_in(self.path)
        try:
            read_run(self.path, config, made)
        except BaseException:
            made.remove()
            raise
        with self._lock:
            self.config, self._config_problem = config, problem
            self.marks.follow(config)
            self.marks.refresh()
            made.replace_marks(self.marks.rows())
            replaced, self._index = self._index, made
        if replaced:
            replaced.remove()


def _config_in(run: Path) -> tuple[RunConfig | None, str]:
    """The configuration of a run folder, whether or not its pictures and models are still there; or what is wrong."""
    try:
        return read_config(run / CONFIG).model_copy(update={"run": run}), ""
    except UserError as problem:
        return None, str(problem)


def watch_runs(paths: Sequence[Path]) -> list[WatchedRun]:
    """Run folders, each given once.

    Raises:
        UserError: One is not a run folder.
    """
    return [WatchedRun(path) for path in dict.fromkeys(Path(os.path.abspath(path)) for path in paths)]
