"""The SQLite file of the answer store: its tables, its transactions, and its errors in words."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from parityalign.core import UserError, WorkFailed

_VERSION = 1
_SECONDS_TO_WAIT = 60.0
"""For another process that is writing."""
_DISK_FAULTS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_TABLES = """
CREATE TABLE IF NOT EXISTS models (
    identity TEXT PRIMARY KEY, name TEXT NOT NULL, special_tokens TEXT NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL, logprob REAL,
    refused TEXT NOT NULL, digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signals (key TEXT PRIMARY KEY, model TEXT NOT NULL, content BLOB, digest BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS used (run TEXT, stage TEXT, key TEXT, PRIMARY KEY (run, stage, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (
    run TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL, counts TEXT NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
    model TEXT NOT NULL, file TEXT NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL, made REAL NOT NULL,
    questions TEXT NOT NULL, form TEXT NOT NULL, seen TEXT NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (model, file)
);
"""


class StoreFile:
    """One file, for any number of threads.

    Attributes:
        path: The file; None: in memory.
        read_only: Whether nothing on the disk is changed.
    """

    def __init__(self, path: Path | None, *, read_only: bool) -> None:
        """Opens or makes it; see `AnswerStore`."""
        self.path = path
        self.read_only = read_only and path is not None and path.exists()
        self._lock = RLock()  # answers of servers are written by another thread
        with self._in_words():
            if path is not None and not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._place = path if path and (self.read_only or not read_only) else Path(":memory:")
            self._file = self._opened()
            self._prepare()

    def close(self) -> None:
        """Closes it."""
        with self._lock:
            self._file.close()

    def rows(self, query: str, *values: object) -> list[Any]:
        """The rows of a query."""
        with self._lock, self._in_words():
            try:
                return self._found(query, values)
            except sqlite3.DatabaseError:
                if not self.read_only:
                    raise
                # It was read as a file that nobody writes, and a run may have begun to.
                self._file.close()
                self._file = self._opened()
                return self._found(query, values)

    def _found(self, query: str, values: tuple[object, ...]) -> list[Any]:
        with closing(self._file.execute(query, values)) as cursor:
            return cursor.fetchall()

    def _opened(self) -> sqlite3.Connection:
        file = sqlite3.connect(
            _looked_at(self._place) if self.read_only else self._place,
            uri=self.read_only,
            timeout=_SECONDS_TO_WAIT,
            check_same_thread=False,
        )
        # A damaged text is a row like any other whose digest is wrong.
        file.text_factory = lambda text: text.decode("utf-8", "replace")
        return file

    def row(self, query: str, *values: object) -> Any:  # noqa: ANN401 - a row of a query
        """The first row of a query; None if there is none."""
        return next(iter(self.rows(query, *values)), None)

    def has_table(self, name: str) -> bool:
        """Whether there is a table; an earlier version's file that is only looked at may lack one."""
        return self.row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", name) is not None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; on the disk when the `with` ends."""
        with self._lock, self._in_words(), self._file:
            self._file.execute("BEGIN IMMEDIATE")
            yield self._file

    def give_back_space(self) -> None:
        """Makes the file as small as what it holds."""
        with self._lock, self._in_words():
            self._file.execute("VACUUM")

    def _prepare(self) -> None:
        (version,) = self._file.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise UserError(
                f"{self.path} is an answer store of a newer parityalign (version {version} of it; this one knows "
                f"{_VERSION}). Update parityalign, or name another file with `answers`."
            )
        if self.read_only:
            return
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = FULL")  # an answer that was paid for survives a power cut
        with self._file:
            self._file.executescript(_TABLES)
            self._file.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as problem:
            code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_BUSY:
                raise WorkFailed(
                    f"the answer store {self.path} is being written by another process for more than "
                    f"{_SECONDS_TO_WAIT:g} s.\nWait for it to end, then run the same command."
                ) from problem
            if code in _DISK_FAULTS:
                raise WorkFailed(
                    f"cannot write the answer store {self.path}: {problem}\n"
                    "What was answered so far is kept: free some space, then run the same command."
                ) from problem
            raise UserError(_unusable(self.path, problem)) from problem
        except sqlite3.DatabaseError as problem:
            raise UserError(_unusable(self.path, problem)) from problem
        except OSError as problem:
            raise WorkFailed(f"cannot make the folder of the answer store {self.path}: {problem.strerror}") from problem


def row_digest(*columns: object) -> bytes:
    """Eight bytes over a row, so that a damaged one is noticed."""
    return hashlib.blake2b(repr(columns).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _looked_at(path: Path) -> str:
    """The address of a store that is only read. Without a log it is read as it is, which leaves no file beside it."""
    logged = path.with_name(f"{path.name}-wal").exists()
    return f"{path.resolve().as_uri()}?{'mode=ro' if logged else 'immutable=1'}"


def _unusable(path: Path | None, problem: sqlite3.Error) -> str:
    return (
        f"the answer store {path} cannot be read: {problem}.\n"
        "It is damaged, or not an answer store. Restore it from a copy; or move it away: then the artifacts stay as "
        "they are, and only what has to be done again is asked again."
    )
