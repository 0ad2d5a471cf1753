"""What travels to and from an OpenAI-compatible chat endpoint: bodies, replies, and what came instead of a reply."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from httpx2 import Response
from pydantic import ValidationError

from parityalign.core import Decoding, Record

REFUSABLE = ("seed", "logprobs", "max_tokens")
"""Fields that are left out, or called otherwise, after a server has refused them by name."""

_SEEDS = 2**31
"""Servers keep seeds in 32 bits with a sign, some of them."""
_SHOWN = 300
_TRY_AGAIN = frozenset({408, 425, 429})


class Said(NamedTuple):
    """A reply."""

    text: str
    finish: str
    """Why it ended there: `stop`, `length` (cut off), `content_filter` ..."""
    prompt_tokens: int | None
    """None: the server does not count."""
    completion_tokens: int | None
    logprob: float | None
    """Natural logarithm of the reply's probability, over its tokens; None where the server did not tell."""


class NoReply(Exception):
    """What a request brought instead of a reply.

    Attributes:
        status: The HTTP status; 0 where there was none.
        again: Whether the same request may succeed later.
        wait: Seconds for which the server asks to be left alone.
    """

    def __init__(self, told: str, *, status: int = 0, again: bool, wait: float | None = None) -> None:
        """Not a reply, but what is told."""
        super().__init__(told)
        self.status = status
        self.again = again
        self.wait = wait


def body(
    model: str, picture: str | None, prompt: str, decoding: Decoding, *, seed: int, without: Collection[str]
) -> dict[str, Any]:
    """The JSON of a request; the image stands before the text, as in the chats of local models.

    Args:
        model: The name under which it is served.
        picture: The image as a data URL; None for a question without one.
        prompt: The text.
        decoding: How tokens are picked.
        seed: Decides the draw, where there is one.
        without: The fields of `REFUSABLE` that the server is not to see.
    """
    images = [{"type": "image_url", "image_url": {"url": picture}}] if picture else []
    fields = {
        "model": model,
        "messages": [{"role": "user", "content": [*images, {"type": "text", "text": prompt}]}],
        "temperature": decoding.temperature,
        "max_tokens": decoding.max_new_tokens,
        "logprobs": True,
    }
    if decoding.temperature > 0:
        fields["seed"] = seed % _SEEDS
    if "max_tokens" in without:
        fields["max_completion_tokens"] = decoding.max_new_tokens
    return {key: value for key, value in fields.items() if key not in without}


def read_reply(response: Response) -> Said:
    """The reply in a response.

    Raises:
        NoReply: There is none; says what there was.
    """
    _refuse_failure(response)
    try:
        said = _Completion.model_validate_json(response.content)
    except ValidationError as problem:
        raise _no_completion(response, problem) from None
    if not said.choices:
        raise NoReply(f"a reply with an empty list of choices: {excerpt(response)}", again=True)
    choice, usage = said.choices[0], said.usage or _Usage()
    tokens = (choice.logprobs and choice.logprobs.content) or ()
    return Said(
        choice.message.content or "",
        choice.finish_reason or "",
        usage.prompt_tokens,
        usage.completion_tokens,
        sum(token.logprob for token in tokens) if tokens else None,
    )


def read_models(response: Response) -> list[str]:
    """The served names from the answer of `/models`.

    Raises:
        NoReply: There is no such list.
    """
    _refuse_failure(response)
    try:
        listed = _Models.model_validate_json(response.content).data or ()
    except ValidationError as problem:
        raise _no_completion(response, problem) from None
    return [model.id for model in listed]


def excerpt(response: Response) -> str:
    """The beginning of what a server sent, as one printable line; the key, which some repeat, is not shown."""
    _, _, key = response.request.headers.get("authorization", "").partition(" ")
    sent = response.text.replace(key, "[key]") if key else response.text
    text = " ".join(sent[: 4 * _SHOWN].split())
    return repr(text[:_SHOWN] + ("..." if len(text) > _SHOWN else ""))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds for which a server asks to be left alone; it gives them as a number or as the date when they end."""
    said = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(said)
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def _refuse_failure(response: Response) -> None:
    if response.is_success:
        return
    again = response.status_code in _TRY_AGAIN or response.status_code >= 500
    told = f"HTTP {response.status_code} {response.reason_phrase}: {excerpt(response)}"
    raise NoReply(told, status=response.status_code, again=again, wait=retry_after(response.headers))


def _no_completion(response: Response, problem: ValidationError) -> NoReply:
    if response.text.lstrip()[:1] == "<":
        return NoReply(f"a web page, not JSON: {excerpt(response)}. Is the address right? Most end in /v1", again=False)
    found = problem.errors()[0]
    if found["type"] == "json_invalid":
        return NoReply(f"broken JSON: {excerpt(response)}", again=True)
    place = ".".join(map(str, found["loc"]))
    return NoReply(f"JSON of another form ({place}: {found['msg'].lower()}): {excerpt(response)}", again=True)


class _Token(Record):
    logprob: float


class _Logprobs(Record):
    content: tuple[_Token, ...] | None = None


class _Message(Record):
    content: str | None = None


class _Choice(Record):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(Record):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(Record):
    choices: tuple[_Choice, ...]
    usage: _Usage | None = None


class _Model(Record):
    id: str


class _Models(Record):
    data: tuple[_Model, ...] | None = None
