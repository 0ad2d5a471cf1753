"""The protocol of remote models: one question, one request, one reply or none."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from parityalign.core.interfaces import Decoding, Request


@dataclass(frozen=True)
class Said:
    """A remote model's reply."""

    text: str
    finish: str = ""
    """Why it ended there: `stop`, `length` (cut off, before any text too), `content_filter` ..."""
    prompt_tokens: int | None = None
    """None: not counted."""
    completion_tokens: int | None = None
    logprob: float | None = None
    """Natural log-probability of the reply, summed over its tokens; None if it was not reported."""
    refused: str = ""
    """Why the server declined this one question, such as its filter's words; then there is no text."""
    left_out: tuple[str, ...] = ()
    """Fields of the request that were left out, as the server refuses them (`seed`, `logprobs`, `temperature`, `top_p`,
    `top_k`, `response_format`; `max_tokens`, which is sent under its newer name)."""
    model: str = ""
    """Which model answered, in the server's words; some answer with another than was asked. Empty: unknown."""


class NoReply(Exception):
    """A request ended without a reply.

    Attributes:
        again: Whether the same request may succeed later.
        wait: Seconds that the server asks to wait before the next request.
        amended: Whether the question will be sent in another form, so that this does not count as a failed attempt.
        advice: What the user can do about it.
        about_this: Whether it is this request that is refused, for what it holds (its picture is flagged or too large);
            others may well be answered.
    """

    def __init__(
        self,
        told: str,
        *,
        again: bool,
        wait: float | None = None,
        amended: bool = False,
        advice: str = "",
        about_this: bool = False,
    ) -> None:
        """Takes what came instead of a reply; it is shown in messages, so it must be short and hold no key."""
        super().__init__(told)
        self.again = again
        self.wait = wait
        self.amended = amended
        self.advice = advice
        self.about_this = about_this


class Remote(Protocol):
    """A remote model. `engines` makes a `Model` of it, with retries, the answer store and a budget."""

    @property
    def name(self) -> str:
        """As in `Model`; what it was asked is counted under it."""

    @property
    def special_tokens(self) -> frozenset[str]:
        """As in `Model`."""

    async def ask(self, request: Request, decoding: Decoding) -> Said:
        """Sends one request, without retrying: each attempt has to fit the budget before it is sent.

        Args:
            request: Its image is empty in the test of whether the model sees pictures.
            decoding: How tokens are picked.

        Raises:
            NoReply: There was none.
            UserError: No further request should be sent.
        """


@runtime_checkable
class Started(Protocol):
    """What a `Remote` may also have: a server of its own, which is started when something is asked."""

    async def ready(self) -> None:
        """Waits until the server answers, and starts it if need be. Called before each question, so it must be cheap.

        Raises:
            UserError: It cannot be started, or ended too often.
        """

    def close(self) -> None:
        """Ends the server; the next question would start another."""


@runtime_checkable
class Connected(Protocol):
    """What a `Remote` may also have: connections that are reused from one question to the next."""

    def connection(self) -> AbstractAsyncContextManager[object]:
        """Opens the connections for questions in one event loop; the end of the `with` closes them."""
