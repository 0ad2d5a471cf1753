"""Append-only streams of records, one JSON line each, and work that resumes after a kill."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from parityalign.core.errors import UserError
from parityalign.core.files import cut_torn_line, writing
from parityalign.core.records import Record

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Stream(Generic[R]):
    """An append-only file of JSON lines, one record a line. Made by `Artifact.stream`."""

    def __init__(self, path: Path, record_type: type[R], *, read_only: bool) -> None:
        self.path = path
        self._record_type = record_type
        self._read_only = read_only
        if not read_only:
            cut_torn_line(path)

    def append(self, records: Sequence[R]) -> None:
        """Appends records in one write and waits until they are on disk.

        Raises:
            WorkFailed: The disk refused (full, read-only).
            ValueError: The artifact is finished.
        """
        if self._read_only:
            raise ValueError(f"{self.path} belongs to a finished artifact and cannot grow")
        if not records:
            return
        rows = (json.dumps(record.model_dump(mode="json"), ensure_ascii=False) for record in records)
        # A lone half of a surrogate pair has no UTF-8 form; its backslash form is just what JSON writes.
        lines = "".join(f"{row}\n" for row in rows).encode("utf-8", "backslashreplace")
        with writing(self.path), self.path.open("ab", buffering=0) as file:
            rest = memoryview(lines)
            while rest:  # the system may write only a part
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())

    def __iter__(self) -> Iterator[R]:
        """The records in the order of their lines; a torn last line is skipped.

        Raises:
            UserError: A whole line is not a record of this kind.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield self._parse(line, number)

    def _parse(self, line: bytes, number: int) -> R:
        try:
            return self._record_type.model_validate(json.loads(line))
        except ValueError as problem:
            kind = self._record_type.__name__
            raise UserError(
                f"{self.path}, line {number}: not a valid {kind}: {line[:80]!r}\n"
                f"Delete the folder {self.path.parent} and run the same command to make it again."
            ) from problem


def resume_in_batches(
    stream: Stream[R],
    items: Sequence[T],
    *,
    item_id: Callable[[T], str],
    record_id: Callable[[R], str],
    batch_size: int,
    work: Callable[[Sequence[T]], Sequence[R]],
    on_progress: Callable[[int, int], None],
) -> None:
    """Makes one record of each item, batch by batch, skipping those that the stream already holds.

    The batches are cut from the complete list, and a partly written batch is computed again as a whole: a
    model's numbers depend on the composition of its batch, so only then does a resumed run write the same
    bytes as an uninterrupted one.

    Args:
        stream: Where the records go, in the order of the items.
        items: All items of the step, in a fixed order, with distinct ids.
        item_id: Identity of an item.
        record_id: The same identity, from its record.
        batch_size: Items per call of `work`.
        work: Makes one record of each item of a batch, in order.
        on_progress: Called with (items done, items in total) after each batch.

    Raises:
        ValueError: Ids are repeated, or `work` returned other records than asked for.
    """
    ids = [item_id(item) for item in items]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{stream.path}: {len(ids) - len(set(ids))} items repeat the id of another")
    there = {record_id(record) for record in stream}
    for start in range(0, len(items), batch_size):
        batch_ids = ids[start : start + batch_size]
        if not there.issuperset(batch_ids):
            records = work(items[start : start + batch_size])
            if [record_id(record) for record in records] != batch_ids:
                raise ValueError(f"{stream.path}: the records of batch {start} do not belong to its items")
            stream.append([record for record in records if record_id(record) not in there])
        on_progress(start + len(batch_ids), len(items))


_WRITE_SIZE = 1000


def write_all(stream: Stream[R], records: Sequence[R], record_id: Callable[[R], str]) -> None:
    """Appends the records that the stream does not yet hold."""
    resume_in_batches(
        stream,
        records,
        item_id=record_id,
        record_id=record_id,
        batch_size=_WRITE_SIZE,
        work=lambda batch: batch,
        on_progress=lambda done, total: None,
    )
