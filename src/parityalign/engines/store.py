"""The answer store: what models answered, kept by what it is an answer to, in one SQLite file.

An answer belongs to a model, the content of an image, a prompt, the decoding and the draw, not to a stage or a place in
a list. So a changed setting deletes nothing, and whoever asks the same again gets it from here. Several processes may
share a store; it has to lie on a disk of this machine, since SQLite's log does not work on network file systems.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from parityalign.core import Said, groups_of
from parityalign.engines.job_book import JobBook
from parityalign.engines.spending import Spent
from parityalign.engines.store_file import StoreFile, row_digest

_AT_ONCE = 500
"""Keys in one query."""


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
        self._file = StoreFile(path, read_only=read_only)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @property
    def jobs(self) -> JobBook:
        """The jobs that providers of batch interfaces have."""
        return JobBook(self._file, self._run, self.stage)

    def model(self, identity: str) -> KnownModel | None:
        """What is known of a model; None if it was never asked."""
        row = self._file.row("SELECT name, special_tokens, digest FROM models WHERE identity = ?", identity)
        sound = row and row[2] == row_digest(identity, row[0], row[1])
        return KnownModel(row[0], frozenset(json.loads(row[1]))) if sound else None

    def place_of(self, location: str) -> str:
        """A server's address with the name of its model, where just one is known there; else as it is."""
        known = [] if "#" in location else self._models_at(location.rstrip("/"))
        return known[0] if len(known) == 1 else location

    def _models_at(self, address: str) -> list[str]:
        start = f"{address}#"
        rows = self._file.rows("SELECT identity, name, special_tokens, digest FROM models")
        return sorted({row[1] for *row, digest in rows if row[1].startswith(start) and digest == row_digest(*row)})

    def remember_model(self, identity: str, model: KnownModel) -> None:
        """Keeps what is known of a model; the first name stays, since pairs carry it."""
        if self._file.read_only or self.model(identity):
            return
        row = (identity, model.name, json.dumps(sorted(model.special_tokens)))
        with self._file.writing() as file:
            file.execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)", (*row, row_digest(*row)))

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
            for key, *columns, digest in self._file.rows(query, *some):
                if digest == row_digest(key, *columns):
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
        rows = [(key, model, *columns, row_digest(key, *columns)) for key, columns in written.items()]
        with self._file.writing() as file:
            file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._book(file, model, spent)

    def signals(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """The signals that are there, each with its key; None: the model shows nothing for it."""
        for some in groups_of(keys, _AT_ONCE):
            places = ", ".join("?" * len(some))
            rows = self._file.rows(f"SELECT key, content, digest FROM signals WHERE key IN ({places})", *some)  # noqa: S608
            yield from ((key, content) for key, content, digest in rows if digest == row_digest(key, content))

    def keep_signals(self, model: str, signals: Mapping[str, bytes | None]) -> None:
        """Keeps signals by key, in one transaction.

        Raises:
            WorkFailed: The disk refused.
        """
        rows = [(key, model, content, row_digest(key, content)) for key, content in signals.items()]
        with self._file.writing() as file:
            file.executemany("INSERT OR REPLACE INTO signals VALUES (?, ?, ?, ?)", rows)
            self._book(file, model, Spent(signals=len(rows)))

    def use(self, keys: Iterable[str]) -> None:
        """Notes that an artifact of the stage is made from these answers or signals."""
        rows = [(self._run, self.stage, key) for key in keys] if not self._file.read_only else []
        if not rows:
            return
        with self._file.writing() as file:
            file.executemany("INSERT OR IGNORE INTO used VALUES (?, ?, ?)", rows)

    def begin_stage(self, stage: str) -> None:
        """From now on this stage is asking; what it used before no longer counts."""
        self.stage = stage
        with self._file.writing() as file:
            file.execute("DELETE FROM used WHERE run = ? AND stage = ?", (self._run, stage))

    def spent(self) -> dict[tuple[str, str], Spent]:
        """What the run spent, by stage and model name."""
        query = (
            "SELECT stage, COALESCE(models.name, spent.model), spent.model, counts, spent.digest FROM spent "
            "LEFT JOIN models ON models.identity = spent.model WHERE run = ? ORDER BY spent.rowid"
        )
        found: dict[tuple[str, str], Spent] = {}
        for stage, name, model, counts, digest in self._file.rows(query, self._run):
            if digest == row_digest(self._run, stage, model, counts):
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
        return [Holding(*row) for row in self._file.rows(query)]

    def drop_unused(self) -> int:
        """Drops what no artifact of any run was made from, and gives the space back.

        Returns:
            How many answers and signals were dropped.
        """
        with self._file.writing() as file:
            dropped = sum(
                file.execute(f"DELETE FROM {table} WHERE key NOT IN (SELECT key FROM used)").rowcount  # noqa: S608
                for table in ("answers", "signals")
            )
        self._file.give_back_space()
        return dropped

    def _book(self, file: sqlite3.Connection, model: str, spent: Spent) -> None:
        counts = json.dumps({name: count for name, count in spent.as_counts().items() if count})
        row = (self._run, self.stage, model, counts)
        file.execute("INSERT INTO spent VALUES (?, ?, ?, ?, ?)", (*row, row_digest(*row)))


def _columns(said: Said) -> tuple[str, str, float | None, str]:
    # Lone surrogates, which cannot be written to a file, become `?`.
    text, finish, refused = (
        each.encode("utf-8", "replace").decode() for each in (said.text, said.finish, said.refused)
    )
    logprob = None if said.logprob is None else said.logprob + 0.0  # SQLite keeps -0.0 as 0.0
    return text, finish, logprob, refused
