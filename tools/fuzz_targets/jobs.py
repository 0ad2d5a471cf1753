"""Responses of batch interfaces: a job or an error; a line of results is a reply, why there is none, or nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import BinaryIO

from hypothesis import strategies as st

from fuzz_targets._drawn import broken, of_pieces
from parityalign.config import ServerSettings
from parityalign.core import Job, JobForm, NoReply, Said
from parityalign.models.backends._jobs import OpenAIDesk
from parityalign.models.backends._received import Received
from parityalign.models.backends.openai import OpenAIModel

_KEYS = frozenset({"a", "b"})
_FORM = JobForm(("model", "messages", "max_tokens", "seed"), ())
_GOOD = [
    '{"custom_id": "a", "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "tea"}}]}}}',
    '{"custom_id": "b", "response": {"status_code": 400, "body": {"error": {"message": "flagged \\ud83d"}}}}',
    '{"custom_id": "a", "response": null, "error": {"code": "batch_expired", "message": "too late"}}',
    '{"id": "batch_1", "status": "in_progress", "input_file_id": "f", "request_counts": {"completed": 2, "failed": 1}}',
    '{"id": "batch_1", "status": "failed", "errors": {"data": [{"code": "token_limit_exceeded", "message": "full"}]}}',
    '{"id": "b", "status": "completed", "input_file_id": "f", "output_file_id": "o", "error_file_id": null}',
    '{"data": [{"id": "b", "input_file_id": "f"}, {"id": "a"}], "has_more": true}',
]
_PIECES = [
    *('{"', '":', "}", "[", "]", ",", '"', "null", "true", "-1", "1e999", "NaN", "9" * 400, "\\ud83d", "\\u0000"),
    *("\x1b[31m", "\u202e", "custom_id", "a", "response", "status_code", "body", "error", "id", "status", "data"),
]
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(_PIECES) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_PIECES), inner, max_size=4),
    max_leaves=8,
)
_RESULT = st.fixed_dictionaries(
    {"custom_id": st.sampled_from(["a", "b", "c"])},
    optional={
        "response": st.fixed_dictionaries({"status_code": st.integers(-1, 999) | _VALUES, "body": _VALUES}) | _VALUES,
        "error": _VALUES,
    },
)
_JOB = st.fixed_dictionaries(
    {"id": st.just("b") | _VALUES},
    optional={
        name: _VALUES
        for name in ("status", "input_file_id", "output_file_id", "error_file_id", "errors", "request_counts")
    },
)
INPUTS = (_RESULT | _RESULT | _JOB | _VALUES).map(json.dumps) | broken(_GOOD, _PIECES) | of_pieces(_PIECES)


class _Model(OpenAIModel):
    """A model whose server says the same to everything."""

    def __init__(self, said: str) -> None:
        super().__init__("http://host/v1", "m", ServerSettings(batch=True))
        self._said = said

    async def send(self, method: str, path: str, content: object = None, *, file: BinaryIO | None = None) -> Received:
        return Received(200, "OK", self._said)

    async def lines(self, path: str, most: int) -> AsyncIterator[str]:
        yield self._said


def check(given: str) -> None:
    """Reads a text as a line of results, as a job and as a list of jobs."""
    desk = OpenAIDesk(_Model(given), ServerSettings(batch=True))
    asyncio.run(_check(desk))


async def _check(desk: OpenAIDesk) -> None:
    async for key, outcome in desk.results("f", _FORM, _KEYS):
        if key not in _KEYS or not isinstance(outcome, Said | NoReply):
            raise AssertionError(f"{key}: {outcome!r}")
        if isinstance(outcome, NoReply) and not (str(outcome).isprintable() and len(str(outcome)) < 1000):
            raise AssertionError(f"{outcome} is no short line")
    for look in (desk.look("b"), desk.find("f"), desk.submit("f")):
        try:
            found = await look
        except NoReply:
            continue
        if found and not (isinstance(found, Job) and f"{found.told}{found.fault}".isprintable() and found.done >= 0):
            raise AssertionError(f"{found}")
