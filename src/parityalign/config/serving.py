"""Settings of remote models; `schema.py` joins them with the others."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from parityalign.config.base import Settings, as_section


def _variable(name: str) -> str:
    # The refused value is not shown: it may be the key itself.
    if not re.fullmatch("[A-Z][A-Z0-9_]*", name):
        raise ValueError("is not an environment variable's name (capitals, digits, underscores); put the key into one")
    return name


IN_FLIGHT = 16
"""Concurrent requests to a server of which nothing is known."""
_OURS = frozenset(
    "model messages temperature top_p top_k max_tokens max_completion_tokens seed logprobs top_logprobs "
    "response_format stream stream_options n".split()
)
"""Fields of a request that are set here, or that change the form of a reply."""
_SECRET = re.compile(r"api.?key|secret|password|authori[sz]ation|credential", re.IGNORECASE)


def _field(name: str) -> str:
    if name in _OURS:
        raise ValueError(
            f"is {name!r}, which parityalign sets itself (annotate.temperature, top_p and top_k, the stages' "
            "max_new_tokens, server.logprobs and response_format) or cannot be asked for"
        )
    if _SECRET.search(name):
        raise ValueError("looks like a secret, which would be written into run.yaml; the key goes into key_variable")
    return name


class BatchSettings(Settings):
    """How models at an address are asked through their provider's batch interface: files of questions, which it
    answers within a day or so at a lower price."""

    above: int = Field(default=1000, ge=0)
    """Up to so many questions at a time are asked one by one, at the full price."""
    price: float = Field(default=0.5, ge=0, le=1)
    """Share of the prices."""
    window: str = Field(default="24h", min_length=1, max_length=20)
    """Time that the provider is given, in its own notation."""
    file_requests: int = Field(default=50_000, ge=1, le=1_000_000)
    """Most questions of a file; further ones go into further files."""
    file_bytes: int = Field(default=200_000_000, ge=1000, le=10**10)
    """Most bytes of a file, pictures included."""
    poll: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds between two looks at what the provider is doing."""
    wait: float | None = Field(default=None, ge=0)
    """Hours that a command waits for the questions of one step; the provider goes on, and the same command takes the
    answers when they are there. None: it waits until they are."""


class ServerSettings(Settings):
    """How remote models (`http://...`) are asked, and what may be spent on them.

    Results depend on `extra_body` and `response_format` alone.
    """

    key_variable: Annotated[str, AfterValidator(_variable)] = "PARITYALIGN_API_KEY"
    """Environment variable that holds the API key, never the key itself; if it is unset, no key is sent."""
    second_key_variable: Annotated[str, AfterValidator(_variable)] = "PARITYALIGN_SECOND_API_KEY"
    """The same for `verify.second_teacher`, which may be somebody else's."""
    max_concurrency: int | None = Field(default=None, ge=1, le=10_000)
    """Most concurrent requests. None: 16, and 64 to a vLLM or SGLang that the run starts."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds until a request without its complete answer is cancelled and sent again."""
    max_attempts: int = Field(default=8, ge=1, le=1000)
    """Most requests for one question; then the stage stops."""
    backoff: float = Field(default=1.0, gt=0)
    """Seconds before the second attempt, doubled for each further one; a server's Retry-After takes precedence."""
    confirm_above: int | None = Field(default=1000, ge=0)
    """On a terminal, a stage that would ask a remote model more questions than this asks first. None: never."""
    budget_requests: int | None = Field(default=None, ge=1)
    """Most requests in the whole run, repeated and refused ones included. None, as for the next two: no limit."""
    budget_tokens: int | None = Field(default=None, ge=1)
    budget_money: float | None = Field(default=None, gt=0)
    """Most money in the whole run, in the currency of the prices."""
    prompt_price: float = Field(default=0.0, ge=0)
    """Price of a million tokens."""
    completion_price: float = Field(default=0.0, ge=0)
    logprobs: bool = True
    """Whether to request and store the log-probability of every reply, by which `verify` drops the least likely."""
    extra_body: dict[Annotated[str, AfterValidator(_field)], JsonValue] = Field(default={})
    """Further fields of every request, such as `{chat_template_kwargs: {enable_thinking: false}}` for vLLM and
    SGLang."""
    response_format: Literal["none", "json_schema"] = "none"
    """`json_schema`: ask the server to hold the teacher's pairs to a JSON schema."""
    batch: Annotated[BatchSettings | None, BeforeValidator(as_section)] = None
    """Ask through the provider's batch interface (`true`, or with settings); see `server.batch`."""

    def numbers(self) -> dict[str, object]:
        """The settings that change a model's answers, if they differ from the defaults."""
        return self.model_dump(include={"extra_body", "response_format"}, exclude_defaults=True)

    @property
    def requests(self) -> int:
        """Most concurrent requests."""
        return self.max_concurrency or IN_FLIGHT

    @model_validator(mode="after")
    def _money_has_prices(self) -> Self:
        if self.budget_money is not None and not self.prompt_price + self.completion_price:
            raise ValueError(
                f"budget_money is {self.budget_money}, but no price is given. Set prompt_price and completion_price"
            )
        return self
