"""Streams of records, one JSON line each: appended to, or written whole."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from parityalign.core.errors import UserError
from parityalign.core.files import HALF_WRITTEN, cut_torn_line, writing
from parityalign.core.records import Record

R = TypeVar("R", bound=Record)


class Stream(Generic[R]):
    """An append-only file of JSON lines, one record a line. Made by `Artifact.stream`."""

    def __init__(self, path: Path, record_type: type[R], *, read_only: bool) -> None:
        self.path = path
        self._record_type = record_type
        self._read_only = read_only
        if not read_only:
            cut_torn_line(path)

    def write(self, records: Iterable[R]) -> None:
        """Replaces the content: a reader sees the old records or the new ones, never a part.

        Raises:
            WorkFailed: The disk refused (full, read-only).
            ValueError: The artifact is finished.
        """
        self._refuse_read_only()
        part = self.path.with_name(self.path.name + HALF_WRITTEN)
        with writing(self.path):
            with part.open("wb") as file:
                file.writelines(_line(record) for record in records)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)

    def append(self, records: Sequence[R]) -> None:
        """Appends records in one write and waits until they are on disk.

        Raises:
            WorkFailed: The disk refused (full, read-only).
            ValueError: The artifact is finished.
        """
        self._refuse_read_only()
        if not records:
            return
        lines = b"".join(map(_line, records))
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

    def _refuse_read_only(self) -> None:
        if self._read_only:
            raise ValueError(f"{self.path} belongs to a finished artifact and cannot change")

    def _parse(self, line: bytes, number: int) -> R:
        try:
            return self._record_type.model_validate(json.loads(line))
        except ValueError as problem:
            kind = self._record_type.__name__
            raise UserError(
                f"{self.path}, line {number}: not a valid {kind}: {line[:80]!r}\n"
                f"Delete the folder {self.path.parent} and run the same command to make it again."
            ) from problem


def _line(record: Record) -> bytes:
    row = json.dumps(record.model_dump(mode="json"), ensure_ascii=False)
    # A lone half of a surrogate pair has no UTF-8 form; its backslash form is just what JSON writes.
    return f"{row}\n".encode("utf-8", "backslashreplace")
