"""The index of a run in SQLite: what is filtered and sorted by lies apart from what is shown, so that a view of 100,000
pairs reads little."""

import sqlite3
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any

FACETS: Mapping[str, Sequence[str]] = {
    "pairs": ("task", "verdict", "kind", "reason_code", "change", "writer"),
    "questions": ("task", "subset", "change"),
}
"""Columns to filter by, by table."""
_SCHEMA = """
CREATE TABLE pairs (
    place INTEGER PRIMARY KEY, pair_id TEXT NOT NULL UNIQUE, task TEXT NOT NULL, verdict TEXT NOT NULL,
    kind TEXT NOT NULL, reason_code TEXT NOT NULL, change TEXT NOT NULL, writer TEXT NOT NULL,
    confidence_gap REAL, attention_divergence REAL, rationale_gap REAL
);
CREATE INDEX pairs_by_confidence ON pairs (confidence_gap DESC);
CREATE INDEX pairs_by_attention ON pairs (attention_divergence DESC);
CREATE INDEX pairs_by_rationale ON pairs (rationale_gap DESC);
CREATE TABLE pair_texts (
    place INTEGER PRIMARY KEY, image_id TEXT NOT NULL, image TEXT NOT NULL, question TEXT NOT NULL,
    answer TEXT NOT NULL, written TEXT, reason TEXT NOT NULL, student TEXT, teacher TEXT, after TEXT,
    student_score REAL, teacher_score REAL, student_logprob REAL, teacher_logprob REAL, rationale TEXT
);
CREATE TABLE looks (
    pair_id TEXT NOT NULL, who TEXT NOT NULL, shard TEXT NOT NULL, line INTEGER NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (pair_id, who)
) WITHOUT ROWID;
CREATE TABLE pair_words (place INTEGER PRIMARY KEY, words TEXT NOT NULL);
CREATE TABLE marks (
    pair_id TEXT PRIMARY KEY, mark TEXT NOT NULL, mark_answer TEXT, note TEXT NOT NULL, pending INTEGER NOT NULL
);
CREATE TABLE questions (
    place INTEGER PRIMARY KEY, question_id TEXT NOT NULL, task TEXT NOT NULL, subset TEXT NOT NULL,
    change TEXT NOT NULL, gain REAL, after_score REAL
);
CREATE TABLE question_texts (
    place INTEGER PRIMARY KEY, image TEXT NOT NULL, question TEXT NOT NULL, answers TEXT NOT NULL, said TEXT NOT NULL
);
CREATE TABLE question_words (place INTEGER PRIMARY KEY, words TEXT NOT NULL);
"""
_KEPT_LISTS = 16
"""Lists of places that are kept; one of 100,000 takes 800 KB."""
Row = Mapping[str, Any]


class Index:
    """What is known of a run, in a file of our own.

    Attributes:
        problems: What could not be read, in words.
    """

    def __init__(self, path: Path) -> None:
        """Makes an empty one at `path`, where nothing is yet."""
        self.problems: list[str] = []
        self._path = path
        self._facets: dict[str, dict[str, dict[str, int]]] = {}
        self._places: dict[tuple[object, ...], array[int]] = {}
        self._lock = RLock()  # a page is made in any of several threads
        self._file = sqlite3.connect(path, check_same_thread=False)
        self._file.row_factory = sqlite3.Row
        self._file.execute("PRAGMA synchronous = OFF")  # it is made anew with the next viewer
        self._file.executescript(_SCHEMA)

    def fill(self, table: str, rows: Iterable[Sequence[object]]) -> None:
        """Adds rows to an empty table; of several with one identity the first stays."""
        with self._lock, self._file:
            columns = len(self.rows(f"PRAGMA table_info({table})"))
            places = ", ".join("?" * columns)
            self._file.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", rows)  # noqa: S608

    def replace_marks(self, rows: Iterable[Sequence[object]]) -> None:
        """Puts these marks in the place of those so far."""
        with self._lock, self._file:
            self._file.execute("DELETE FROM marks")
            self._file.executemany("INSERT INTO marks VALUES (?, ?, ?, ?, ?)", rows)
            self._places.clear()

    def count_facets(self) -> None:
        """Counts the values to filter by, once all rows are there."""
        self._facets = {table: {column: self._counted(table, column) for column in of} for table, of in FACETS.items()}

    def facets(self, table: str) -> Mapping[str, Mapping[str, int]]:
        """How many rows of a table have each value, by column; empty values are left out."""
        return self._facets[table]

    def rows(self, query: str, *values: object) -> list[Row]:
        """The rows of a query."""
        with self._lock:
            return [dict(row) for row in self._file.execute(query, values)]

    def number(self, query: str, *values: object) -> int:
        """The one number of a query."""
        with self._lock:
            return int(self._file.execute(query, values).fetchone()[0])

    def places(self, query: str, *values: object) -> Sequence[int]:
        """The numbers of a query, one a row, kept for the next page of the same list."""
        with self._lock:
            known = self._places.pop((query, *values), None)
            if known is None:
                cursor = self._file.cursor()
                cursor.row_factory = None  # plain tuples: there may be 100,000
                known = array("q", chain.from_iterable(cursor.execute(query, values)))
            self._places[query, *values] = known  # as the newest
            if len(self._places) > _KEPT_LISTS:
                del self._places[next(iter(self._places))]
            return known

    def reviewed(self) -> int:
        """How many pairs of the run a person has marked."""
        return self.number("SELECT COUNT(*) FROM marks JOIN pairs USING (pair_id)")

    def remove(self) -> None:
        """Takes the file off the disk; whoever still reads it does so to the end."""
        self._path.unlink(missing_ok=True)

    def _counted(self, table: str, column: str) -> dict[str, int]:
        query = f"SELECT {column} AS value, COUNT(*) AS n FROM {table} GROUP BY 1 ORDER BY 2 DESC, 1"  # noqa: S608
        return {row["value"]: row["n"] for row in self.rows(query) if row["value"]}
