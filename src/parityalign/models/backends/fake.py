"""A model without a network: replies come from a function, or from a table in a file. For tests and examples.

    {"replies": [{"image": "stop.png", "contains": "What is written", "text": "stop"},
                 {"image": "*", "contains": "", "text": "Question: What is it? Answer: a sign"}]}

The first row whose image is the file's name (or `*`) and whose text is in the prompt gives the reply.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from parityalign.config import Backend, LoadingSettings
from parityalign.core import Decoding, Record, Request, UserError, WorkFailed


class FakeModel:
    """Replies with the results of a function; records its requests.

    Attributes:
        asked: Every request so far, in order.
    """

    def __init__(
        self,
        reply: Callable[[Request, Decoding], str],
        *,
        name: str = "fake:function",
        special_tokens: frozenset[str] = frozenset(),
    ) -> None:
        """A model that calls `reply` for every request."""
        self.name = name
        self.special_tokens = special_tokens
        self.asked: list[Request] = []
        self._reply = reply

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order."""
        self.asked.extend(requests)
        return [self._reply(request, decoding) for request in requests]


class ScriptedReply(Record):
    """One line of the table of replies."""

    image: str = "*"
    """File name of the image, or `*` for any."""
    contains: str = ""
    """Text that the prompt contains; empty for any."""
    text: str
    """The reply."""


class ReplyTable(Record):
    """The content of a file of replies."""

    replies: tuple[ScriptedReply, ...]
    special_tokens: frozenset[str] = frozenset()


def load(location: str, _loading: LoadingSettings | None = None) -> FakeModel:
    """The model whose replies are in the JSON file at `location`; the loading settings do not apply.

    Raises:
        UserError: The file is missing or does not hold a table of replies.
    """
    table = _read(Path(location))

    def reply(request: Request, _: Decoding) -> str:
        for row in table.replies:
            if row.image in ("*", Path(request.image).name) and row.contains in request.prompt:
                return row.text
        raise WorkFailed(
            f"{location} has no reply for the image {request.image!r} and the prompt {request.prompt!r}.\n"
            'Add a row, or end the table with {"image": "*", "text": "..."}.'
        )

    return FakeModel(reply, name=f"fake:{location}", special_tokens=table.special_tokens)


BACKEND = Backend(load=load)


def _read(path: Path) -> ReplyTable:
    try:
        return ReplyTable.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as problem:
        raise UserError(f"cannot read the fake model {path}: {problem.strerror}") from problem
    except ValidationError as problem:
        found = problem.errors()[0]
        place = ".".join(map(str, found["loc"]))
        raise UserError(f"{path} is not a table of replies: {place or 'the file'}: {found['msg']}") from problem
    except ValueError as problem:
        raise UserError(f"{path} is not JSON: {problem}") from problem
