"""Messages of an OpenAI-compatible chat endpoint: request bodies and replies.

The `openai` library would do little of this, and some of it otherwise: see "Decisions" in docs/design.md.
"""

import re
from collections.abc import Collection
from typing import Annotated, Any, TypeVar

from pydantic import AliasPath, BeforeValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from parityalign.config import ServerSettings
from parityalign.core import Decoding, NoReply, Record, Request, Said
from parityalign.models.backends._failures import WRONG_ADDRESS, excerpt, is_of_one, passes
from parityalign.models.backends._received import Received, short_line

R = TypeVar("R", bound=Record)

_TEXT = {"type": "string"}
PAIR_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "pair",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"question": _TEXT, "answer": _TEXT},
            "required": ["question", "answer"],
            "additionalProperties": False,
        },
    },
}
"""Holds a reply to one question and its answer; `stages/parsing.py` reads that as it reads text."""

_SEEDS = 2**31
"""Some servers store seeds as signed 32-bit integers."""
_MOST_SCORED = 4096
"""Tokens of a reply with log-probabilities: about 150 bytes each, and a response is read up to a limit. Longer ones are
mostly thoughts, whose log-probabilities say nothing of the answer."""
_NAME = 200
"""Characters of a model's name that are kept."""
_BROKEN_OFF = frozenset({"error", "network_error", "insufficient_system_resource", "abort"})
"""Ends of a reply that is none: the server lost its model."""
_CUT_OFF = frozenset({"max_tokens", "max_output_tokens", "model_length"})
"""What some call `length`."""
_NO_ROOM = re.compile(r"could not finish the message because|output limit was reached", re.IGNORECASE)
"""How OpenAI's servers refuse a request whose tokens did not suffice for the model's thoughts."""
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def body(
    model: str,
    picture: str | None,
    request: Request,
    decoding: Decoding,
    *,
    server: ServerSettings,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """The JSON of a request; the image comes before the text, as in the chats of local models.

    Args:
        model: The name under which it is served.
        picture: The image as a data URL; None for a question without one.
        request: The text, and the seed of the draw if there is one.
        decoding: How tokens are picked.
        server: Which optional fields are wanted, and further ones.
        without: The fields of `REFUSABLE` to leave out.
    """
    images = [{"type": "image_url", "image_url": {"url": picture}}] if picture else []
    fields: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": [*images, {"type": "text", "text": request.prompt}]}],
        "temperature": decoding.temperature,
        "max_tokens": decoding.max_new_tokens,
    }
    if server.logprobs and decoding.max_new_tokens <= _MOST_SCORED:
        fields["logprobs"] = True
    if decoding.temperature > 0:
        fields |= _drawing(request, decoding)
    if decoding.pair and server.response_format == "json_schema":
        fields["response_format"] = PAIR_FORMAT
    if "max_tokens" in without:
        fields["max_completion_tokens"] = decoding.max_new_tokens
    return server.extra_body | {key: value for key, value in fields.items() if key not in without}


def _drawing(request: Request, decoding: Decoding) -> dict[str, Any]:
    """The fields of a draw; those that would change nothing are not sent, since not every server takes them."""
    fields: dict[str, Any] = {"seed": request.seed % _SEEDS}
    if decoding.top_p < 1:
        fields["top_p"] = decoding.top_p
    if decoding.top_k:
        fields["top_k"] = decoding.top_k
    return fields


def _or_none(value: object, read: ValidatorFunctionWrapHandler) -> object:
    try:
        return read(value)
    except ValidationError:
        return None


IfReadable = WrapValidator(_or_none)
"""What else a reply says must not cost the reply: a value that cannot be is one that was not given."""


def _joined(content: object) -> object:
    """The text of a content that is given in parts; thoughts and pictures are no text."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


Count = Annotated[int | None, Field(ge=0, le=10**9), IfReadable]
Word = Annotated[str | None, IfReadable]


class _Message(Record):
    content: Annotated[str | None, BeforeValidator(_joined)] = None


class _Token(Record):
    logprob: float = Field(ge=-1e6, le=1)


class _Completion(Record):
    """The fields of a reply that are read; `null` in place of an object counts as missing."""

    message: _Message | None = Field(None, validation_alias=AliasPath("choices", 0, "message"))
    finish: Word = Field(None, validation_alias=AliasPath("choices", 0, "finish_reason"))
    tokens: Annotated[tuple[_Token, ...] | None, IfReadable] = Field(
        None, validation_alias=AliasPath("choices", 0, "logprobs", "content")
    )
    prompt_tokens: Count = Field(None, validation_alias=AliasPath("usage", "prompt_tokens"))
    completion_tokens: Count = Field(None, validation_alias=AliasPath("usage", "completion_tokens"))
    model: Word = None
    error: object = None
    """What some servers and gateways say with status 200."""
    broke: object = Field(None, validation_alias=AliasPath("choices", 0, "error"))


class _Model(Record):
    id: str


class _Models(Record):
    data: tuple[_Model, ...] | None = None


def read_reply(received: Received, *, left_out: tuple[str, ...], proven: bool) -> Said:
    """The reply in a response.

    Args:
        received: The response.
        left_out: Fields that its request lacked.
        proven: Whether the server has answered other requests; else its address may be wrong.

    Raises:
        NoReply: There is no reply; the error says what came instead.
    """
    if is_out_of_room(received):
        return Said("", "length", left_out=left_out)
    found = read_record(received, _Completion, proven=proven)
    finish = short_line(found.finish or "", 40)
    if error := found.error or found.broke or (finish if finish in _BROKEN_OFF else ""):
        raise broken_off(error, proven=proven or found.message is not None)
    if found.message is None:
        raise _of_another_form("choices.0.message: field required", received, proven=proven)
    return Said(
        found.message.content or "",
        "length" if finish.lower() in _CUT_OFF else finish,
        found.prompt_tokens,
        found.completion_tokens,
        sum(token.logprob for token in found.tokens) if found.tokens else None,
        left_out=left_out,
        model=short_line(found.model or "", _NAME),
    )


def is_out_of_room(received: Received) -> bool:
    """Whether a server refuses a request because its reply was cut off before any text."""
    return received.status == 400 and bool(_NO_ROOM.search(received.text[:2000]))


def read_models(received: Received) -> list[str]:
    """The served names from the answer of `/models`, each as one short line.

    Raises:
        NoReply: There is no such list.
    """
    return [short_line(model.id, _NAME) for model in read_record(received, _Models, proven=False).data or ()]


def broken_off(error: object, *, proven: bool) -> NoReply:
    """For an error with status 200: as if it had come with the status that it names."""
    code, words = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, error)
    status = int(str(code)) if re.fullmatch("[45][0-9][0-9]", str(code)) else 502 if proven else 404
    return NoReply(
        f"an error in place of a reply: {excerpt(str(words or error))}",
        again=passes(status),
        advice=WRONG_ADDRESS if status == 404 else "",
        about_this=is_of_one(status, str(error), proven=proven),
    )


def _of_another_form(what: str, received: Received, *, proven: bool) -> NoReply:
    told = f"JSON of another form ({what}): {excerpt(received.text)}"
    return NoReply(told, again=proven, advice="" if proven else WRONG_ADDRESS)


def read_record(received: Received, form: type[R], *, proven: bool) -> R:
    """What a response has of a record.

    Args:
        received: The response, a success.
        form: The record.
        proven: As of `read_reply`.

    Raises:
        NoReply: It is none.
    """
    try:
        return form.model_validate_json(with_whole_characters(received.text))
    except ValidationError as problem:
        found = problem.errors()[0]
    if received.text.lstrip()[:1] == "<":
        told = f"a web page, not JSON: {excerpt(received.text)}. Is the address right? Most end in /v1"
        raise NoReply(told, again=proven)
    if found["type"] == "json_invalid":
        raise NoReply(f"broken JSON: {excerpt(received.text)}", again=True)
    place = ".".join(map(str, found["loc"]))
    raise _of_another_form(f"{place}: {found['msg'].lower()}", received, proven=proven)


def with_whole_characters(json: str) -> str:
    """JSON with `?` for half a surrogate pair, which a gateway leaves where it cuts an emoji."""
    if "\\ud" not in json and "\\uD" not in json:
        return json
    return _ESCAPE.sub(lambda found: "?" if found["half"] else found[0], json)
