"""How one question is asked until it is answered: attempts, waits between them, and when to give up."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import httpx2

from parityalign.config import ServerSettings
from parityalign.core import Decoding, UserError, WorkFailed
from parityalign.models.backends._ledger import Budget, Usage
from parityalign.models.backends._wire import REFUSABLE, NoReply, Said, read_models, read_reply

T = TypeVar("T")

LONGEST_WAIT = 600.0
"""Seconds; a server that asks to be left alone for longer is out of its quota, and the stage stops."""
_LONGEST_BACKOFF = 60.0


class Question(NamedTuple):
    """What is asked."""

    about: str
    """The image's name, for messages."""
    body: Callable[[set[str]], dict[str, Any]]
    """(the fields that the server has refused) -> the JSON to send."""
    decoding: Decoding


class Line:
    """A server as the questions of one call of `generate` reach it. Made by `opened`; lives in one event loop.

    Attributes:
        refused: Optional fields that the server does not take; shared by all lines to a model.
        problem: Why nothing more is to be sent; the first one counts.
    """

    def __init__(
        self, url: str, client: httpx2.AsyncClient, settings: ServerSettings, budget: Budget, refused: set[str]
    ) -> None:
        self.refused = refused
        self.problem: UserError | None = None
        self._url = url
        self._client = client
        self._settings = settings
        self._budget = budget
        self._key = _key(settings)
        self._not_before = 0.0
        self._stopped = asyncio.Event()

    def stop(self, problem: UserError) -> None:
        """Lets nothing more be sent; what is in flight may still be answered."""
        self.problem = self.problem or problem
        self._stopped.set()

    async def models(self) -> list[str]:
        """The names of the served models."""
        try:
            return await self._within_deadline(lambda: self._client.get(f"{self._url}/models"), read_models)
        except NoReply as problem:
            raise self._refusal(problem, "its list of models") from None

    async def ask(self, question: Question, taken: Usage) -> Said:
        """Sends a question until it is answered; counts every request in `taken`.

        Raises:
            UserError: It was refused, or not answered often enough, or the budget is used up.
        """
        failures = 0
        while True:
            sent = question.body(self.refused)
            try:
                return await self._send(sent, question.decoding.max_new_tokens, taken)
            except NoReply as problem:
                if self._gives_way(problem, sent):
                    continue
                failures += 1
                if not problem.again or (problem.wait or 0) > LONGEST_WAIT:
                    raise self._refusal(problem, f"a question about {question.about}") from None
                if failures >= self._settings.max_attempts:
                    raise self._exhausted(problem, question, failures) from None
                await self._pause(problem, failures)

    async def _send(self, sent: dict[str, Any], size: int, taken: Usage) -> Said:
        while (left := self._not_before - time.monotonic()) > 0 and not self.problem:
            await rest(self._stopped, left)
        await self._budget.take(size)
        said: Said | None = None
        try:
            if self.problem:
                raise self.problem
            taken.requests += 1
            said = await self._within_deadline(
                lambda: self._client.post(f"{self._url}/chat/completions", json=sent), read_reply
            )
        finally:
            prompt, completion = (said.prompt_tokens or 0, said.completion_tokens or 0) if said else (0, 0)
            await self._budget.settle(size, prompt, completion)
        self._require_usage(said)
        return said

    async def _within_deadline(self, request: Callable[[], Any], read: Callable[[httpx2.Response], T]) -> T:
        """Makes a request and reads what comes; whatever goes wrong on the way is a `NoReply`."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                response = await request()
        except TimeoutError:
            raise NoReply(f"no whole answer within {self._settings.timeout:g} s", again=True) from None
        except (httpx2.TransportError, httpx2.DecodingError) as problem:
            raise NoReply(f"{type(problem).__name__}: {problem or 'the connection broke'}", again=True) from None
        return read(response)

    async def _pause(self, problem: NoReply, failures: int) -> None:
        """Waits before the next attempt, longer each time and never all questions in step."""
        if problem.wait is None:
            longest = min(_LONGEST_BACKOFF, self._settings.backoff * 2 ** (failures - 1))
            await rest(self._stopped, longest * random.uniform(0.5, 1))
            return
        # The server means everybody: whoever sends next waits until then.
        self._not_before = max(self._not_before, time.monotonic() + problem.wait)
        await rest(self._stopped, problem.wait + random.uniform(0, self._settings.backoff))

    def _gives_way(self, problem: NoReply, sent: dict[str, Any]) -> bool:
        """Whether the server has refused an optional field by name; from now on it is left out."""
        named = {field for field in REFUSABLE if field in sent and field in str(problem)}
        if problem.status not in (400, 422) or not named:
            return False
        self.refused |= named
        return True

    def _require_usage(self, said: Said) -> None:
        limits = self._settings
        counts = said.prompt_tokens is not None and said.completion_tokens is not None
        if not counts and (limits.budget_tokens is not None or limits.budget_money is not None):
            self.stop(
                WorkFailed(
                    f"{self._url} does not say how many tokens a reply took, so a budget of tokens or money cannot be "
                    "kept.\nSet server.budget_requests in its place and run the same command."
                )
            )

    def _exhausted(self, problem: NoReply, question: Question, failures: int) -> UserError:
        return WorkFailed(
            f"{self._url} gave no answer to a question about {question.about} in {failures} attempts. "
            f"The last brought {self._hidden(problem)}\n"
            "What was answered is kept: when the server is well again, run the same command."
        )

    def _refusal(self, problem: NoReply, to: str) -> UserError:
        advice = "What was answered is kept; mend this, then run the same command."
        variable = self._settings.key_variable
        if problem.status in (401, 403):
            has = "refuses the key in" if self._key else "wants a key: set"
            advice = f"It {has} the environment variable {variable} (server.key_variable names it)."
        elif problem.status == 404:
            advice = "Look at the address (most end in /v1) and at the model's name behind the #."
        elif problem.wait:
            advice = f"It asks to be left alone for {problem.wait:,.0f} s. What was answered is kept: run again then."
        return WorkFailed(f"{self._url}: {to} brought {self._hidden(problem)}\n{advice}")

    def _hidden(self, problem: NoReply) -> str:
        """What went wrong in words, without the key, which libraries may repeat."""
        return str(problem).replace(self._key, "[key]") if self._key else str(problem)


@asynccontextmanager
async def opened(url: str, settings: ServerSettings, budget: Budget, refused: set[str]) -> AsyncIterator[Line]:
    """A line to a server, whose connections are closed at the end of the `with`.

    Raises:
        UserError: The key in the environment cannot be one.
    """
    key, many = _key(settings), settings.max_concurrency
    async with httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        limits=httpx2.Limits(max_connections=many, max_keepalive_connections=many),
        verify=url.startswith("https:"),  # else reading the system's certificates is time for nothing
        timeout=None,  # the deadline is stricter: a server that sends a byte now and then is cut off too
    ) as client:
        yield Line(url, client, settings, budget, refused)


def _key(settings: ServerSettings) -> str:
    key = os.environ.get(settings.key_variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {settings.key_variable} holds characters that no key has")
    return key


async def rest(until: asyncio.Event, seconds: float) -> None:
    """Waits for the event, but no longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        pass
