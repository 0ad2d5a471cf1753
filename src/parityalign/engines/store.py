"""The answer store: what models answered, kept by what it is an answer to, in one SQLite file.

An answer belongs to a model, the content of an image, a prompt, the decoding and the draw, not to a stage or a place in
a list. So a changed setting deletes nothing, and whoever asks the same again gets it from here. Several processes may
share a store; it has to lie on a disk of this machine, since SQLite's log does not work on network file systems.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

from parityalign.core import Said, UserError, WorkFailed, groups_of
from parityalign.engines.spending import Spent

_VERSION = 1
_SECONDS_TO_WAIT = 60.0
"""For another process that is writing."""
_AT_ONCE = 500
"""Keys in one query."""
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
"""


class KnownModel(NamedTuple):
    """What a store knows of a model without loading it."""

    name: str
    special_tokens: frozenset[str]


class Holding(NamedTuple):
    """What a store holds of one model."""

    model: str
    """Its name; its identity where the name is not known."""
    answers: int
    signals: int
    unused: int
    """Of both: those that no artifact of any run was made from."""
    bytes: int


class AnswerStore:
    """The answers in a file, and what a run spent on them.

    Attributes:
        path: The file; None: in memory.
        stage: The stage that is asking; what is spent and used is booked on it.
    """

    def __init__(self, path: Path | None = None, *, run: str = "", read_only: bool = False) -> None:
        """Opens or makes the store.

        Args:
            path: The file; None keeps everything in memory.
            run: The id of the run whose spending and use is booked.
            read_only: Change nothing on the disk; a file that is not there is as good as an empty one.

        Raises:
            UserError: The file is not an answer store, is damaged, or was made by a newer version.
            WorkFailed: The disk refused.
        """
        self.path = path
        self.stage = ""
        self._run = run
        self._lock = RLock()  # answers of servers are written by another thread
        self._read_only = read_only and path is not None and path.exists()
        with self._in_words():
            if path is not None and not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                _looked_at(path) if path and self._read_only else self._place(read_only),
                uri=self._read_only,
                timeout=_SECONDS_TO_WAIT,
                check_same_thread=False,
            )
            # A damaged text is a row like any other whose digest is wrong.
            self._file.text_factory = lambda text: text.decode("utf-8", "replace")
            self._prepare()

    def _place(self, read_only: bool) -> Path | str:
        return ":memory:" if self.path is None or read_only else self.path

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._file.close()

    def model(self, identity: str) -> KnownModel | None:
        """What is known of a model; None if it was never asked."""
        row = self._row("SELECT name, special_tokens, digest FROM models WHERE identity = ?", identity)
        sound = row and row[2] == _digest(identity, row[0], row[1])
        return KnownModel(row[0], frozenset(json.loads(row[1]))) if sound else None

    def place_of(self, location: str) -> str:
        """A server's address with the name of its model, where just one is known there; else as it is."""
        known = [] if "#" in location else self._models_at(location.rstrip("/"))
        return known[0] if len(known) == 1 else location

    def _models_at(self, address: str) -> list[str]:
        start = f"{address}#"
        rows = self._rows("SELECT identity, name, special_tokens, digest FROM models")
        return sorted({row[1] for *row, digest in rows if row[1].startswith(start) and digest == _digest(*row)})

    def remember_model(self, identity: str, model: KnownModel) -> None:
        """Keeps what is known of a model; the first name stays, since pairs carry it."""
        if self._read_only or self.model(identity):
            return
        row = (identity, model.name, json.dumps(sorted(model.special_tokens)))
        with self._writing() as file:
            file.execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)", (*row, _digest(*row)))

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The distinct keys that have no answer, in their order."""
        distinct = list(dict.fromkeys(keys))
        there = {key for key, _ in self.answers(distinct)}
        return [key for key in distinct if key not in there]

    def answers(self, keys: Iterable[str]) -> Iterator[tuple[str, Said]]:
        """The answers that are there, each with its key; damaged ones are as if they were not there."""
        for some in groups_of(keys, _AT_ONCE):
            places = ", ".join("?" * len(some))
            query = f"SELECT key, text, finish, logprob, refused, digest FROM answers WHERE key IN ({places})"  # noqa: S608
            for key, *columns, digest in self._rows(query, *some):
                if digest == _digest(key, *columns):
                    text, finish, logprob, refused = columns
                    yield key, Said(text, finish, logprob=logprob, refused=refused)

    def keep(self, model: str, answers: Mapping[str, Said], spent: Spent) -> None:
        """Keeps answers and books what they took, in one transaction; on the disk when this returns.

        Args:
            model: The identity of the model.
            answers: By key.
            spent: What they took, and questions without an answer.

        Raises:
            WorkFailed: The disk refused.
        """
        written = {key: _columns(said) for key, said in answers.items()}
        rows = [(key, model, *columns, _digest(key, *columns)) for key, columns in written.items()]
        with self._writing() as file:
            file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._book(file, model, spent)

    def signals(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """The signals that are there, each with its key; None: the model shows nothing for it."""
        for some in groups_of(keys, _AT_ONCE):
            places = ", ".join("?" * len(some))
            rows = self._rows(f"SELECT key, content, digest FROM signals WHERE key IN ({places})", *some)  # noqa: S608
            yield from ((key, content) for key, content, digest in rows if digest == _digest(key, content))

    def keep_signals(self, model: str, signals: Mapping[str, bytes | None]) -> None:
        """Keeps signals by key, in one transaction.

        Raises:
            WorkFailed: The disk refused.
        """
        rows = [(key, model, content, _digest(key, content)) for key, content in signals.items()]
        with self._writing() as file:
            file.executemany("INSERT OR REPLACE INTO signals VALUES (?, ?, ?, ?)", rows)
            self._book(file, model, Spent(signals=len(rows)))

    def use(self, keys: Iterable[str]) -> None:
        """Notes that an artifact of the stage is made from these answers or signals."""
        rows = [(self._run, self.stage, key) for key in keys] if not self._read_only else []
        if not rows:
            return
        with self._writing() as file:
            file.executemany("INSERT OR IGNORE INTO used VALUES (?, ?, ?)", rows)

    def begin_stage(self, stage: str) -> None:
        """From now on this stage is asking; what it used before no longer counts."""
        self.stage = stage
        with self._writing() as file:
            file.execute("DELETE FROM used WHERE run = ? AND stage = ?", (self._run, stage))

    def spent(self) -> dict[tuple[str, str], Spent]:
        """What the run spent, by stage and model name."""
        query = (
            "SELECT stage, COALESCE(models.name, spent.model), spent.model, counts, spent.digest FROM spent "
            "LEFT JOIN models ON models.identity = spent.model WHERE run = ? ORDER BY spent.rowid"
        )
        found: dict[tuple[str, str], Spent] = {}
        for stage, name, model, counts, digest in self._rows(query, self._run):
            if digest == _digest(self._run, stage, model, counts):
                found[stage, name] = found.get((stage, name), Spent()) + Spent.of_counts(json.loads(counts))
        return found

    def holdings(self) -> list[Holding]:
        """What the store holds, by model."""
        query = """
            SELECT COALESCE(models.name, held.model), SUM(held.answer), SUM(1 - held.answer),
                   SUM(NOT EXISTS (SELECT 1 FROM used WHERE used.key = held.key)), SUM(held.size)
            FROM (SELECT key, model, 1 AS answer, LENGTH(CAST(text AS BLOB)) AS size FROM answers
                  UNION ALL SELECT key, model, 0, COALESCE(LENGTH(content), 0) FROM signals) AS held
            LEFT JOIN models ON models.identity = held.model GROUP BY 1 ORDER BY 1"""
        return [Holding(*row) for row in self._rows(query)]

    def drop_unused(self) -> int:
        """Drops what no artifact of any run was made from, and gives the space back.

        Returns:
            How many answers and signals were dropped.
        """
        with self._writing() as file:
            dropped = sum(
                file.execute(f"DELETE FROM {table} WHERE key NOT IN (SELECT key FROM used)").rowcount  # noqa: S608
                for table in ("answers", "signals")
            )
        with self._lock, self._in_words():
            self._file.execute("VACUUM")
        return dropped

    def _prepare(self) -> None:
        (version,) = self._file.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise UserError(
                f"{self.path} is an answer store of a newer parityalign (version {version} of it; this one knows "
                f"{_VERSION}). Update parityalign, or name another file with `answers`."
            )
        if self._read_only:
            return
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = FULL")  # an answer that was paid for survives a power cut
        with self._file:
            self._file.executescript(_TABLES)
            self._file.execute(f"PRAGMA user_version = {_VERSION}")

    def _book(self, file: sqlite3.Connection, model: str, spent: Spent) -> None:
        counts = json.dumps({name: count for name, count in spent.as_counts().items() if count})
        row = (self._run, self.stage, model, counts)
        file.execute("INSERT INTO spent VALUES (?, ?, ?, ?, ?)", (*row, _digest(*row)))

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._lock, self._in_words(), closing(self._file.execute(query, values)) as cursor:
            return cursor.fetchall()

    def _row(self, query: str, *values: object) -> Any:  # noqa: ANN401 - a row of a query
        return next(iter(self._rows(query, *values)), None)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._in_words(), self._file:
            self._file.execute("BEGIN IMMEDIATE")
            yield self._file

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


def _columns(said: Said) -> tuple[str, str, float | None, str]:
    # Lone surrogates, which cannot be written to a file, become `?`.
    text, finish, refused = (
        each.encode("utf-8", "replace").decode() for each in (said.text, said.finish, said.refused)
    )
    logprob = None if said.logprob is None else said.logprob + 0.0  # SQLite keeps -0.0 as 0.0
    return text, finish, logprob, refused


def _digest(*columns: object) -> bytes:
    """Eight bytes over a row, so that a damaged one is noticed."""
    return hashlib.blake2b(repr(columns).encode("utf-8", "surrogatepass"), digest_size=8).digest()
