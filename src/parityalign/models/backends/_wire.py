"""Messages of an OpenAI-compatible chat endpoint: request bodies, replies and errors.

The `openai` library would do little of this, and some of it otherwise: see "Decisions" in docs/design.md.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from httpx2 import Response
from pydantic import AliasPath, Field, ValidationError

from parityalign.core import Decoding, NoReply, Record, Request, Said

R = TypeVar("R", bound=Record)

REFUSABLE = ("seed", "logprobs", "max_tokens")
"""Fields that are left out, or renamed, after a server has refused them by name."""

_SEEDS = 2**31
"""Some servers store seeds as signed 32-bit integers."""
_SHOWN = 300
_TRY_AGAIN = frozenset({408, 425, 429})
_WRONG_ADDRESS = "Check the address (most end in /v1) and the model's name after the #."


def body(
    model: str, picture: str | None, request: Request, decoding: Decoding, *, without: Collection[str]
) -> dict[str, Any]:
    """The JSON of a request; the image comes before the text, as in the chats of local models.

    Args:
        model: The name under which it is served.
        picture: The image as a data URL; None for a question without one.
        request: The text, and the seed of the draw if there is one.
        decoding: How tokens are picked.
        without: The fields of `REFUSABLE` to leave out.
    """
    images = [{"type": "image_url", "image_url": {"url": picture}}] if picture else []
    fields = {
        "model": model,
        "messages": [{"role": "user", "content": [*images, {"type": "text", "text": request.prompt}]}],
        "temperature": decoding.temperature,
        "max_tokens": decoding.max_new_tokens,
        "logprobs": True,
    }
    if decoding.temperature > 0:
        fields["seed"] = request.seed % _SEEDS
    if "max_tokens" in without:
        fields["max_completion_tokens"] = decoding.max_new_tokens
    return {key: value for key, value in fields.items() if key not in without}


class _Message(Record):
    content: str | None = None


class _Token(Record):
    logprob: float


class _Completion(Record):
    """The fields of a reply that are read; `null` in place of an object counts as missing."""

    message: _Message = Field(validation_alias=AliasPath("choices", 0, "message"))
    finish: str | None = Field(None, validation_alias=AliasPath("choices", 0, "finish_reason"))
    tokens: tuple[_Token, ...] | None = Field(None, validation_alias=AliasPath("choices", 0, "logprobs", "content"))
    prompt_tokens: int | None = Field(None, validation_alias=AliasPath("usage", "prompt_tokens"))
    completion_tokens: int | None = Field(None, validation_alias=AliasPath("usage", "completion_tokens"))


class _Model(Record):
    id: str


class _Models(Record):
    data: tuple[_Model, ...] | None = None


def read_reply(response: Response, *, left_out: tuple[str, ...]) -> Said:
    """The reply in a response.

    Raises:
        NoReply: There is no reply; the error says what came instead.
    """
    said = _read(response, _Completion)
    return Said(
        said.message.content or "",
        said.finish or "",
        said.prompt_tokens,
        said.completion_tokens,
        sum(token.logprob for token in said.tokens) if said.tokens else None,
        left_out=left_out,
    )


def read_models(response: Response) -> list[str]:
    """The served names from the answer of `/models`.

    Raises:
        NoReply: There is no such list.
    """
    return [model.id for model in _read(response, _Models).data or ()]


def refuse_failure(response: Response, key_variable: str) -> None:
    """Raises an error for a response that is not a success.

    Raises:
        NoReply: The status is not 2xx.
    """
    if response.is_success:
        return
    status, advice = response.status_code, ""
    if status in (401, 403):
        has = "refuses the key in" if _key_of(response) else "wants a key: set"
        advice = f"It {has} the environment variable {key_variable} (server.key_variable names it)."
    told = f"HTTP {status} {response.reason_phrase}: {excerpt(response)}"
    raise NoReply(
        told,
        again=status in _TRY_AGAIN or status >= 500,
        wait=retry_after(response.headers),
        advice=_WRONG_ADDRESS if status == 404 else advice,
    )


def excerpt(response: Response) -> str:
    """The beginning of a server's response, as one printable line, without the key, which some servers repeat."""
    key = _key_of(response)
    sent = response.text.replace(key, "[key]") if key else response.text
    text = " ".join(sent[: 4 * _SHOWN].split())
    return repr(text[:_SHOWN] + ("..." if len(text) > _SHOWN else ""))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until the next request, from Retry-After: a number, or the date when they end."""
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


def _key_of(response: Response) -> str:
    return str(response.request.headers.get("authorization", "")).partition(" ")[2]


def _read(response: Response, form: type[R]) -> R:
    try:
        return form.model_validate_json(response.content)
    except ValidationError as problem:
        found = problem.errors()[0]
    if response.text.lstrip()[:1] == "<":
        raise NoReply(f"a web page, not JSON: {excerpt(response)}. Is the address right? Most end in /v1", again=False)
    if found["type"] == "json_invalid":
        raise NoReply(f"broken JSON: {excerpt(response)}", again=True)
    place = ".".join(map(str, found["loc"]))
    raise NoReply(f"JSON of another form ({place}: {found['msg'].lower()}): {excerpt(response)}", again=True)
