"""What a server sent, as it is let in: of bounded size, as text whatever it calls itself, and without the key."""

import re
from collections.abc import AsyncIterator
from functools import cache
from typing import NamedTuple

from httpx2 import Response

from parityalign.core import NoReply

MOST_BYTES = 4 * 2**20
"""Of one response, unpacked; a reply of 20,000 tokens with their log-probabilities takes half of it."""
_SHORTEST_KEY = 8
"""Shorter ones (`EMPTY`, `none`) are what servers without keys are given, and may be words of an answer."""


class Received(NamedTuple):
    """A response."""

    status: int
    reason: str = ""
    """What the server calls the status, as one short printable line."""
    text: str = ""
    retry_after: str = ""
    keyed: bool = False
    """Whether the request held a key."""

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


async def receive(response: Response, key: str) -> Received:
    """Reads a response that has begun.

    Args:
        response: Its body is not read yet.
        key: It is struck out, since some servers repeat it.

    Raises:
        NoReply: It is too long, or packed several times over, so that a few bytes might keep unpacking busy for days.
    """
    _refuse_packed(response)
    content = bytearray()
    async for piece in response.aiter_bytes():  # pieces of at most 1 MiB however well they are packed
        content += piece
        if len(content) > MOST_BYTES:
            raise NoReply(f"a response of more than {MOST_BYTES // 2**20} MiB", again=True)
    return Received(
        response.status_code,
        short_line(without_key(response.reason_phrase, key), 60),
        # JSON is UTF-8; what charset a server names is not looked at.
        without_key(content.decode("utf-8-sig", "replace"), key),
        response.headers.get("retry-after", ""),
        keyed=bool(key),
    )


async def receive_lines(response: Response, key: str, most: int) -> AsyncIterator[str]:
    """The lines of a response that has begun, as they come; each as `receive` has the whole.

    Args:
        response: Its body is not read yet.
        key: It is struck out.
        most: Lines; further ones are left, since a server might send them for ever.

    Raises:
        NoReply: A line is too long, or the response is packed several times over.
    """
    _refuse_packed(response)
    begun, count = bytearray(), 0
    async for piece in response.aiter_bytes():
        begun += piece
        *whole, begun = begun.split(b"\n")
        if len(begun) > MOST_BYTES:
            raise NoReply(f"a line of more than {MOST_BYTES // 2**20} MiB", again=True)
        for line in whole[: most - count]:
            yield without_key(line.decode("utf-8-sig", "replace"), key)
        count += len(whole)
        if count >= most:
            return
    yield without_key(begun.decode("utf-8-sig", "replace"), key)


def _refuse_packed(response: Response) -> None:
    named = response.headers.get("content-encoding", "").lower().split(",")
    packed = [each for each in named if each.strip() not in ("", "identity")]
    if len(packed) > 1:
        raise NoReply(f"a response that is packed {len(packed)} times over", again=True)


def without_key(text: str, key: str) -> str:
    """The text with `[key]` where the key stood, also where JSON spells its characters otherwise.

    >>> without_key("Bearer sk-12345678 and sk-\\\\u0031234567\\\\u0038", "sk-12345678")
    'Bearer [key] and [key]'
    """
    return _spellings(key).sub("[key]", text) if len(key) >= _SHORTEST_KEY else text


def short_line(text: str, most: int) -> str:
    r"""The beginning of a text as one line without control characters.

    >>> short_line("Not\n\x1b[31mfound", 20)
    'Not ?[31mfound'
    """
    line = " ".join(text[: 4 * most].split())
    shown = "".join(sign if sign.isprintable() else "?" for sign in line)
    return shown if len(shown) <= most else f"{shown[:most]}..."


@cache
def _spellings(key: str) -> re.Pattern[str]:
    return re.compile("".join(rf"(?:\\?{re.escape(sign)}|\\u(?i:{ord(sign):04x}))" for sign in key))
