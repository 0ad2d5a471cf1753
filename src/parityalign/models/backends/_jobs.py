"""The batch interface of OpenAI's protocol: files, jobs made of them, and files of results."""

import json
import re
from collections.abc import AsyncIterator, Collection
from typing import Annotated, BinaryIO, Protocol
from urllib.parse import quote

from pydantic import Field, JsonValue, ValidationError

from parityalign.config import BatchSettings, ServerSettings
from parityalign.core import Decoding, Job, JobForm, JobLine, NoReply, Record, Request, Said
from parityalign.models.backends._failures import refuse_failure
from parityalign.models.backends._received import Received, short_line
from parityalign.models.backends._wire import Count, IfReadable, Word, broken_off, read_record, with_whole_characters

_ENDPOINT = "/v1/chat/completions"
"""As it stands in files, whatever the server's address is."""
_ENDED = frozenset("completed failed expired cancelled canceled".split())
_PASSES = re.compile(r"token.?limit|enqueued|rate.?limit|too many|capacity|overload|internal|server.?error", re.I)
"""Why a provider does not take a job now, but will later."""
_PAGE, _PAGES = 100, 20
"""Jobs in one list, and lists that are looked through, from the newest on."""
_WORDS = 300

_Name = Annotated[str, Field(min_length=1, max_length=500)]


class Sender(Protocol):
    """The model behind a server, whose requests these are."""

    async def written(self, request: Request, decoding: Decoding) -> tuple[dict[str, object], tuple[str, ...]]:
        """A question's JSON, and the fields that are left out."""

    def read(self, received: Received, sent: Collection[str], left_out: tuple[str, ...], *, proven: bool) -> Said:
        """The reply in a response."""

    async def send(self, method: str, path: str, content: object = None, *, file: BinaryIO | None = None) -> Received:
        """The response to a request."""

    def lines(self, path: str, most: int) -> AsyncIterator[str]:
        """The lines of a file."""


class _File(Record):
    id: _Name


class _Fault(Record):
    code: Word = None
    message: Word = None


class _Faults(Record):
    data: tuple[_Fault, ...] | None = None


class _Counts(Record):
    completed: Count = None
    failed: Count = None


class _Batch(Record):
    id: _Name
    status: Word = None
    input_file_id: Word = None
    output_file_id: Word = None
    error_file_id: Word = None
    errors: Annotated[_Faults | None, IfReadable] = None
    request_counts: Annotated[_Counts | None, IfReadable] = None


class _Batches(Record):
    data: tuple[_Batch, ...] = ()
    has_more: bool | None = None


class _Response(Record):
    status_code: int = 200
    body: JsonValue = None


class _Result(Record):
    custom_id: str
    response: _Response | None = None
    error: JsonValue = None


class OpenAIDesk:
    """A `JobDesk`."""

    def __init__(self, model: Sender, server: ServerSettings) -> None:
        self._model = model
        self._server = server

    async def line(self, key: str, request: Request, decoding: Decoding) -> JobLine:
        """A question as a line of a file."""
        sent, left_out = await self._model.written(request, decoding)
        row = {"custom_id": key, "method": "POST", "url": _ENDPOINT, "body": sent}
        return JobLine(json.dumps(row).encode() + b"\n", JobForm(tuple(sorted(sent)), left_out))

    async def upload(self, file: BinaryIO) -> str:
        """Sends a file."""
        return read_record(await self._done("POST", "files", file=file), _File, proven=True).id

    async def submit(self, file: str) -> Job:
        """Makes a job of a file."""
        window = (self._server.batch or BatchSettings()).window
        wanted = {"input_file_id": file, "endpoint": _ENDPOINT, "completion_window": window}
        return _job(read_record(await self._done("POST", "batches", wanted), _Batch, proven=True))

    async def find(self, file: str) -> Job | None:
        """The job of a file, among the newest 2,000."""
        return await anext((_job(each) async for each in self._all() if each.input_file_id == file), None)

    async def look(self, job: str) -> Job | None:
        """How far a job is. One that is not found is gone only if the list of jobs lacks it too."""
        received = await self._model.send("GET", f"batches/{quote(job, safe='')}")
        if received.status == 404:
            return await anext((_job(each) async for each in self._all() if each.id == job), None)
        refuse_failure(received, self._server.key_variable, proven=True)
        return _job(read_record(received, _Batch, proven=True))

    async def results(
        self, file: str, form: JobForm, keys: Collection[str]
    ) -> AsyncIterator[tuple[str, Said | NoReply]]:
        """What came of questions; lines that are none are left out."""
        async for line in self._model.lines(f"files/{quote(file, safe='')}/content", most=2 * len(keys) + 100):
            found = _result(line)
            if found and found.custom_id in keys:
                yield found.custom_id, self._outcome(found, form)

    async def forget(self, file: str) -> None:
        """Has a file deleted."""
        await self._done("DELETE", f"files/{quote(file, safe='')}")

    def _outcome(self, result: _Result, form: JobForm) -> Said | NoReply:
        if result.response is None or result.response.body is None:
            return broken_off(result.error or "neither a response nor an error", proven=True)
        received = Received(result.response.status_code, "", json.dumps(result.response.body))
        try:
            return self._model.read(received, form.sent, form.left_out, proven=True)  # it has made the job
        except NoReply as problem:
            return problem

    async def _all(self) -> AsyncIterator[_Batch]:
        after = ""
        for _ in range(_PAGES):
            received = await self._done("GET", f"batches?limit={_PAGE}{after}")
            page = read_record(received, _Batches, proven=True)
            for each in page.data:
                yield each
            if not (page.has_more and page.data):
                return
            after = f"&after={quote(page.data[-1].id, safe='')}"

    async def _done(self, method: str, path: str, content: object = None, *, file: BinaryIO | None = None) -> Received:
        received = await self._model.send(method, path, content, file=file)
        refuse_failure(received, self._server.key_variable, proven=True)
        return received


def _job(found: _Batch) -> Job:
    status, counts = (found.status or "").lower(), found.request_counts or _Counts()
    results = tuple(file for file in (found.output_file_id, found.error_file_id) if file)
    faults = (found.errors.data if found.errors else None) or ()
    words = "; ".join(f"{each.code or ''} {each.message or ''}".strip() for each in faults[:3])
    fault = short_line(words or "without a reason", _WORDS) if status == "failed" and not results else ""
    return Job(
        found.id,
        short_line(status, 40),
        ended=status in _ENDED,
        done=(counts.completed or 0) + (counts.failed or 0),
        results=results,
        fault=fault,
        passes=bool(_PASSES.search(fault)),
    )


def _result(line: str) -> _Result | None:
    try:
        return _Result.model_validate_json(with_whole_characters(line))
    except ValidationError:
        return None
