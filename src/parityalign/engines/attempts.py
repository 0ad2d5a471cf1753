"""Retries for a question to a remote model: attempts, waits between them, when to give up."""

import asyncio
import random
import time
from dataclasses import dataclass

from parityalign.config import ServerSettings
from parityalign.core import Decoding, NoReply, Remote, Request, Said, Started, UserError, WorkFailed
from parityalign.engines.spending import Budget

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for a longer wait is out of quota, and the stage stops."""
_DECLINED_AT_LEAST, _DECLINED_SHARE = 10, 0.1
_LONGEST_BACKOFF = 60.0
_MOST_DOUBLINGS = 60


def longest_backoff(settings: ServerSettings, failures: int) -> float:
    """Seconds to wait at most after so many failures in a row."""
    return min(_LONGEST_BACKOFF, settings.backoff * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))


class OneRefused(WorkFailed):
    """A server refuses one question for what it holds, such as a picture that its filter flags; others it may answer.

    Attributes:
        told: What it said.
    """

    def __init__(self, message: str, told: str) -> None:
        super().__init__(message)
        self.told = told


@dataclass
class Sent:
    """How many requests were sent for one question."""

    requests: int = 0


class Attempts:
    """A remote model for the questions of one call of `generate`; lives in one event loop.

    Attributes:
        problem: Why nothing more is sent; the first problem counts.
    """

    def __init__(self, remote: Remote, settings: ServerSettings, budget: Budget) -> None:
        self.problem: UserError | None = None
        self._remote = remote
        self._started = remote if isinstance(remote, Started) else None
        self._settings = settings
        self._budget = budget
        self._not_before = 0.0
        self._stopped = asyncio.Event()

    def stop(self, problem: UserError) -> None:
        """Stops sending; requests in flight may still be answered."""
        self.problem = self.problem or problem
        self._stopped.set()

    async def ask(self, request: Request, decoding: Decoding, sent: Sent) -> Said:
        """Sends a question until it is answered; counts every request in `sent`.

        Raises:
            OneRefused: It was refused for what it holds.
            UserError: It was refused otherwise, or not answered often enough, or the budget is used up.
        """
        failures = 0
        while True:
            try:
                return await self._send(request, decoding, sent)
            except NoReply as problem:
                if problem.amended:
                    continue
                failures += 1
                if not problem.again or (problem.wait or 0) > LONGEST_WAIT:
                    raise self._refusal(problem, request) from None
                if failures >= self._settings.max_attempts:
                    raise self._exhausted(problem, request, failures) from None
                await self._pause(problem, failures)

    async def _send(self, request: Request, decoding: Decoding, sent: Sent) -> Said:
        while (left := self._not_before - time.monotonic()) > 0 and not self.problem:
            await rest(self._stopped, left)
        if self._started and not self.problem:
            await self._started.ready()  # it may take minutes, which are not the request's
        await self._budget.take(decoding.max_new_tokens)
        said: Said | None = None
        try:
            if self.problem:
                raise self.problem
            sent.requests += 1
            async with asyncio.timeout(self._settings.timeout):
                said = await self._remote.ask(request, decoding)
        except TimeoutError:
            raise NoReply(f"no whole answer within {self._settings.timeout:g} s", again=True) from None
        finally:
            prompt, completion = (said.prompt_tokens or 0, said.completion_tokens or 0) if said else (0, 0)
            await self._budget.settle(decoding.max_new_tokens, prompt, completion)
        self._require_usage(said)
        return said

    async def _pause(self, problem: NoReply, failures: int) -> None:
        """Waits before the next attempt, with exponential backoff and jitter."""
        if problem.wait is None:
            await rest(self._stopped, longest_backoff(self._settings, failures) * random.uniform(0.5, 1))
            return
        # This applies to all questions: the next request of any of them waits until then.
        self._not_before = max(self._not_before, time.monotonic() + problem.wait)
        await rest(self._stopped, problem.wait + random.uniform(0, self._settings.backoff))

    def _require_usage(self, said: Said) -> None:
        limits = self._settings
        counts = said.prompt_tokens is not None and said.completion_tokens is not None
        counts |= not said.text and said.finish == "length"  # some refuse such a request, and count nothing
        if not counts and (limits.budget_tokens is not None or limits.budget_money is not None):
            self.stop(
                WorkFailed(
                    f"{self._remote.name} does not report how many tokens a reply took, so a budget of tokens or money "
                    "cannot be enforced.\nSet server.budget_requests instead and run the same command."
                )
            )

    def _exhausted(self, problem: NoReply, request: Request, failures: int) -> UserError:
        advice = "Answers so far are kept: when the server works again, run the same command."
        message = (
            f"{self._remote.name} gave no answer to a question about {request.image} in {failures} attempts. "
            f"The last one gave {problem}\n{problem.advice or advice}"
        )
        return OneRefused(message, str(problem)) if problem.about_this else WorkFailed(message)

    def _refusal(self, problem: NoReply, request: Request) -> UserError:
        advice = problem.advice or "Answers so far are kept; fix this, then run the same command."
        if problem.wait and not problem.advice:
            advice = f"It asks to wait for {problem.wait:,.0f} s. Answers so far are kept: run the same command then."
        message = f"{self._remote.name}: a question about {request.image} gave {problem}\n{advice}"
        return OneRefused(message, str(problem)) if problem.about_this else WorkFailed(message)


async def rest(until: asyncio.Event, seconds: float) -> None:
    """Waits for the event, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        pass


def declines_too_many(declined: int, answered: int) -> bool:
    """Whether a server declines so many questions, each on its own, that it is not asked on."""
    return declined > _DECLINED_AT_LEAST and declined > _DECLINED_SHARE * answered
