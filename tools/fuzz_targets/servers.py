"""Responses of model servers: each is a reply or an error in one short line, and neither holds the key."""

import asyncio
import gzip
import json
import math
import zlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from httpx2 import AsyncByteStream, DecodingError, Response
from hypothesis import strategies as st

from fuzz_targets._drawn import broken, of_pieces
from parityalign.core import NoReply, Said
from parityalign.models.backends._failures import refuse_failure, refused_fields
from parityalign.models.backends._received import receive
from parityalign.models.backends._wire import is_out_of_room, read_models, read_reply

KEY = "sk-of-nobody-77"
_SENT = ("model", "messages", "temperature", "seed", "max_tokens", "logprobs")
_GOOD = [
    '{"id": "x", "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "tea"}, '
    '"finish_reason": "stop", "logprobs": {"content": [{"token": "t", "logprob": -0.1, "bytes": [116]}]}}], '
    '"usage": {"prompt_tokens": 10, "completion_tokens": 2}}',
    '{"choices": [{"message": {"content": [{"type": "thinking"}, {"type": "text", "text": "a\\ud83d"}]}}]}',
    '{"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "gone"}}]}',
    '{"error": {"message": "Unsupported parameter: \'seed\' is not supported", "param": "seed", "code": "x"}}',
    '{"error": {"message": "This model\'s maximum context length is 4096 tokens, reduce max_tokens", "code": 400}}',
    '{"detail": [{"type": "extra_forbidden", "loc": ["body", "logprobs"], "msg": "Extra inputs are not permitted"}]}',
    '{"object": "list", "data": [{"id": "org/model"}, {"id": "other"}]}',
    "<html><head><title>502 Bad Gateway</title></head></html>",
]
_PIECES = [
    *('{"', '":', "}", "[", "]", ",", '"', "null", "true", "-1", "1e999", "NaN", "-Infinity", "9" * 400, "1.5", "\\"),
    *("\\ud83d", "\\ude00", "\\u0000", "\\x", "\ufeff", "\x1b[31m", "\u202e", "\0", "<", "image too large", "flagged "),
    *('"choices"', '"message"', '"content"', '"text"', '"error"', '"code"', '"usage"', '"data"', '"id"', '"model"'),
    *("unknown field `", "seed", "temperature", " is not allowed", "expected one of ", "max_tokens", KEY, KEY[:7]),
    *(KEY.replace("k", "\\u006b"), "output limit was reached", "quota", "process an image", "imageimage"),
]
_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(_PIECES) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "type", "code", "message"]), inner)
    ),
    max_leaves=6,
)
_TEXT = st.text(max_size=9) | st.sampled_from(_PIECES)
_CONTENT = _TEXT | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": _TEXT}) | _VALUES, max_size=3)
_LOGPROBS = st.fixed_dictionaries({"content": st.lists(st.fixed_dictionaries({"logprob": _VALUES}), max_size=3)})
_CHOICE = st.fixed_dictionaries(
    {"message": st.fixed_dictionaries({"content": _CONTENT | _CONTENT | _VALUES})},
    optional={"finish_reason": _VALUES, "logprobs": _LOGPROBS, "error": st.none() | _VALUES},
)
_USAGE = st.fixed_dictionaries({"prompt_tokens": _VALUES, "completion_tokens": _VALUES})
_FORMED = st.fixed_dictionaries(
    {"choices": st.lists(_CHOICE, min_size=1, max_size=2)},
    optional={"usage": _USAGE | _VALUES, "model": _VALUES, "error": st.none() | _VALUES},
)
_LISTED = st.fixed_dictionaries({"data": st.lists(st.fixed_dictionaries({"id": _TEXT}), max_size=3) | _VALUES})
_FAILED = st.dictionaries(st.sampled_from(["error", "detail", "message", "code"]), _VALUES)
_HEADERS = {
    "Content-Type": ["application/json", "text/plain; charset=idna", 'x; charset="', "text/html; charset=utf-16"],
    "Retry-After": [
        "3",
        "1e400",
        "nan",
        "-1",
        "9" * 400,
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 1 Jan 1 0:0:0 +9",
    ],
    "Location": ["/v1", "\x1b"],
}
_PACKED = {"gzip": gzip.compress, "deflate": zlib.compress, "gzip, gzip": gzip.compress, "identity": bytes, "x": bytes}


class Sent(NamedTuple):
    """What a server sends."""

    status: int
    reason: bytes
    headers: dict[str, str]
    body: bytes


class _Body(AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), 100):
            yield self._content[start : start + 100]


def _sent(status: int, reason: bytes, headers: dict[str, str], text: str, packed: str) -> Sent:
    body = text.encode("utf-8", "surrogatepass")
    if packed:
        return Sent(status, reason, {**headers, "Content-Encoding": packed}, _PACKED[packed](body))
    return Sent(status, reason, headers, body)


_RAW_HEADERS = {
    key: st.sampled_from(values) | st.text(st.characters(max_codepoint=255), max_size=20)
    for key, values in _HEADERS.items()
}
INPUTS = st.builds(
    _sent,
    st.sampled_from((200, 200, 200, 400, 403, 422, 500)) | st.integers(200, 999),
    st.sampled_from((b"OK", b"\x1b]0;x\x07", b"\xff", KEY.encode())) | st.binary(max_size=9),
    st.fixed_dictionaries({}, optional=_RAW_HEADERS),
    (_FORMED | _FORMED | _LISTED | _FAILED).map(json.dumps) | broken(_GOOD, _PIECES) | of_pieces(_PIECES),
    st.sampled_from(("", "", "", *_PACKED)),
) | st.builds(Sent, st.just(200), st.just(b""), st.just({"Content-Encoding": "gzip"}), st.binary(max_size=60))


def check(given: Sent) -> None:
    """Reads a response as a reply, before and after the server has given one, and as a list of models."""
    for proven in (True, False):
        try:
            found = asyncio.run(_read(given, proven=proven))
        except DecodingError:  # which the backend catches where it catches a broken connection
            continue
        except NoReply as problem:
            _require_line(str(problem), 1000)
            _require_line(problem.advice, 300)
            if problem.wait is not None and not 0 <= problem.wait < math.inf:
                raise AssertionError(f"a wait of {problem.wait}") from problem
            continue
        for name in found if isinstance(found, list) else (found.finish, found.model):
            _require_line(name, 210)
        if KEY in repr(found):
            raise AssertionError(f"the key stands in {found}")


async def _read(sent: Sent, *, proven: bool) -> Said | list[str]:
    response = Response(
        sent.status,
        headers=[(key.encode(), value.encode("latin-1")) for key, value in sent.headers.items()],
        stream=_Body(sent.body),
        extensions={"reason_phrase": sent.reason},
    )
    received = await receive(response, KEY)
    if not is_out_of_room(received):
        refused_fields(received, _SENT, "org/model")
        refuse_failure(received, "THE_KEY", proven=proven)
    if b'"data"' in sent.body:
        return read_models(received)
    return read_reply(received, left_out=(), proven=proven)


def _require_line(text: str, most: int) -> None:
    if KEY in text or len(text) > most or not (text.isprintable() or not text):
        raise AssertionError(f"a line of {len(text)} characters: {text[:2000]!r}")
