"""Questions written into files that a batch interface takes: so many questions, and so many bytes."""

from collections.abc import AsyncIterator, Mapping
from typing import BinaryIO, NamedTuple

from parityalign.config import BatchSettings
from parityalign.core import Decoding, JobDesk, JobForm, JobLine, Request, WorkFailed


class Written(NamedTuple):
    """What a file holds."""

    keys: list[str]
    """Of its questions; empty: none is left."""
    form: JobForm
    bytes: int


class JobFiles:
    """The files of some questions, in their order."""

    def __init__(
        self, desk: JobDesk, limits: BatchSettings, requests: Mapping[str, Request], decoding: Decoding
    ) -> None:
        """Writes nothing yet."""
        self._desk, self._limits, self._decoding = desk, limits, decoding
        self._lines = self._each(requests)
        self._over: tuple[str, JobLine] | None = None

    async def write(self, file: BinaryIO) -> Written:
        """Writes the next file.

        Raises:
            WorkFailed: A single question is too large for a file, or its image cannot be read.
        """
        keys: list[str] = []
        form, size = JobForm((), ()), 0
        while len(keys) < self._limits.file_requests and (found := self._over or await anext(self._lines, None)):
            (key, line), self._over = found, None
            if size + len(line.content) > self._limits.file_bytes:
                self._over = found
                break
            file.write(line.content)
            keys.append(key)
            form, size = line.form, size + len(line.content)
        return Written(keys, form, size)

    async def _each(self, requests: Mapping[str, Request]) -> AsyncIterator[tuple[str, JobLine]]:
        for key, request in requests.items():
            line = await self._desk.line(key, request, self._decoding)
            if len(line.content) > self._limits.file_bytes:
                raise WorkFailed(
                    f"a question about {request.image} takes {len(line.content):,} bytes, more than a file of the "
                    f"batch interface may have (server.batch.file_bytes: {self._limits.file_bytes:,}).\n"
                    "Lower loading.teacher.max_pixels, so that pictures are sent smaller."
                )
            yield key, line
