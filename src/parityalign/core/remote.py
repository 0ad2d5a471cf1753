"""The contract with models whose answers come from elsewhere: one question, one request, one reply or none."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from parityalign.core.interfaces import Decoding, Request


@dataclass(frozen=True)
class Said:
    """A reply from elsewhere."""

    text: str
    finish: str = ""
    """Why it ended there: `stop`, `length` (cut off), `content_filter` ..."""
    prompt_tokens: int | None = None
    """None: nobody counts."""
    completion_tokens: int | None = None
    logprob: float | None = None
    """Natural logarithm of the reply's probability, over its tokens; None where it was not told."""
    left_out: tuple[str, ...] = ()
    """Optional fields of the request that were left out, as the other side does not take them (`seed`, `logprobs`)."""


class NoReply(Exception):
    """What a request brought instead of a reply.

    Attributes:
        again: Whether the same request may succeed later.
        wait: Seconds for which the other side asks to be left alone.
        amended: Whether the question will be sent in another form, so that this was no failed attempt.
        advice: What the user can do about it.
    """

    def __init__(
        self, told: str, *, again: bool, wait: float | None = None, amended: bool = False, advice: str = ""
    ) -> None:
        """Not a reply, but what is told; it goes into messages, so it must hold no key."""
        super().__init__(told)
        self.again = again
        self.wait = wait
        self.amended = amended
        self.advice = advice


class Remote(Protocol):
    """A model that answers from elsewhere. `engines` makes a `Model` of it, with attempts, a ledger and a budget."""

    @property
    def name(self) -> str:
        """As in `Model`; what was asked is kept under it."""

    @property
    def special_tokens(self) -> frozenset[str]:
        """As in `Model`."""

    async def ask(self, request: Request, decoding: Decoding) -> Said:
        """Sends one request, without attempts of its own: each has to fit the budget before it is sent.

        Args:
            request: Its image is an empty text where the sight of the model is tested without one.
            decoding: How tokens are picked.

        Raises:
            NoReply: There was none.
            UserError: Nothing more is to be sent.
        """


@runtime_checkable
class Connected(Protocol):
    """What a `Remote` may have as well: connections that it keeps from one question to the next."""

    def connection(self) -> AbstractAsyncContextManager[object]:
        """Opens them for a number of questions in one event loop; they are closed at the end of the `with`."""
