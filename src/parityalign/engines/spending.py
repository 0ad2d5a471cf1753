"""What a run spends on models: counts by stage, and the budget for remote ones."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from parityalign.config import BatchSettings, ServerSettings
from parityalign.core import Said, WorkFailed

SEED, LOGPROBS, TEMPERATURE, FORMAT = "seed", "logprobs", "temperature", "response_format"
SAMPLING = frozenset({"top_p", "top_k"})


@dataclass(frozen=True)
class Spent:
    """What a number of questions took."""

    answers: int = 0
    requests: int = 0
    """Sent to servers, including repeated ones; 0 for a model in this process."""
    retries: int = 0
    """Repeated requests: those beyond the first of each question."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    longest_prompt: int = 0
    """Tokens of the longest prompt."""
    seconds: float = 0.0
    """Summed over the questions of servers, many of which are in flight concurrently."""
    cut_off: int = 0
    """Answers cut off at their token limit."""
    refused: int = 0
    """Questions that the server declined, such as those about a picture that its filter does not pass."""
    with_logprob: int = 0
    without_seed: int = 0
    """Answers to requests from which the seed was left out, since the server refuses it."""
    without_logprobs: int = 0
    """The same for log-probabilities."""
    without_temperature: int = 0
    """The same for the temperature."""
    without_sampling: int = 0
    """The same for `top_p` or `top_k`."""
    without_format: int = 0
    """The same for the form of a reply."""
    signals: int = 0
    """Texts that a model was scored on."""
    in_jobs: int = 0
    """Answers that came by a batch interface, and the tokens of these, which have another price."""
    prompt_tokens_in_jobs: int = 0
    completion_tokens_in_jobs: int = 0
    answered_by: tuple[str, ...] = ()
    """Names that the server gave of models that answered, other than the one that was asked."""

    @classmethod
    def on(cls, said: Said | None, *, requests: int, seconds: float) -> "Spent":
        """What one question to a server took; `said` is None where there was no answer."""
        asked = cls(requests=requests, retries=max(0, requests - 1), seconds=round(seconds, 3))
        if said is None:
            return asked
        return asked + cls(
            answers=1,
            prompt_tokens=said.prompt_tokens or 0,
            completion_tokens=said.completion_tokens or 0,
            longest_prompt=said.prompt_tokens or 0,
            cut_off=said.finish == "length",
            with_logprob=said.logprob is not None,
            without_seed=SEED in said.left_out,
            without_logprobs=LOGPROBS in said.left_out,
            without_temperature=TEMPERATURE in said.left_out,
            without_sampling=not SAMPLING.isdisjoint(said.left_out),
            without_format=FORMAT in said.left_out,
        )

    @classmethod
    def on_line(cls, said: Said | None, *, again: bool) -> "Spent":
        """What one question of a job took; `again`: it had been in one before."""
        took = cls.on(said, requests=1, seconds=0.0)
        tokens = took.prompt_tokens, took.completion_tokens
        return took + cls(
            retries=again, in_jobs=took.answers, prompt_tokens_in_jobs=tokens[0], completion_tokens_in_jobs=tokens[1]
        )

    def by_another(self, model: str, asked: str) -> "Spent":
        """The same, answered by a model that the server calls so, if that is not the one that was asked."""
        same = not model or model == asked.partition("#")[2]
        return self if same else replace(self, answered_by=(model,))

    def __add__(self, other: "Spent") -> "Spent":
        """Both together."""
        both = {name: count + getattr(other, name) for name, count in asdict(self).items()}
        both["longest_prompt"] = max(self.longest_prompt, other.longest_prompt)
        both["answered_by"] = tuple(dict.fromkeys(both["answered_by"]))
        return Spent(**both)

    def as_counts(self) -> dict[str, Any]:
        """The numbers by their names, for a manifest."""
        return {**asdict(self), "seconds": round(self.seconds, 1)}

    @classmethod
    def of_counts(cls, counts: Mapping[str, Any]) -> "Spent":
        """The inverse of `as_counts`, where counts of 0 may be missing."""
        return cls(**{**counts, "answered_by": tuple(counts.get("answered_by", ()))})


def of_stage(spent: Mapping[tuple[str, str], Spent], stage: str) -> dict[str, Spent]:
    """What each model took in a stage, those parts of it included that are called `STAGE, PART`."""
    found: dict[str, Spent] = {}
    for (of, name), each in spent.items():
        if of == stage or of.startswith(f"{stage}, "):
            found[name] = found.get(name, Spent()) + each
    return found


def cost(spent: Spent, settings: ServerSettings) -> float:
    """What tokens cost at the given prices."""
    at_less = price_of_job(spent.prompt_tokens_in_jobs, spent.completion_tokens_in_jobs, settings)
    in_jobs = _price(spent.prompt_tokens_in_jobs, spent.completion_tokens_in_jobs, settings)
    return _price(spent.prompt_tokens, spent.completion_tokens, settings) - in_jobs + at_less


def price_of_job(prompt_tokens: int, completion_tokens: int, settings: ServerSettings) -> float:
    """What tokens cost by the batch interface."""
    return _price(prompt_tokens, completion_tokens, settings) * (settings.batch or BatchSettings()).price


def room_for_jobs(settings: ServerSettings, spent: Spent, max_new_tokens: int) -> int | None:
    """How many more questions fit into the budget as jobs, each as long as the longest so far; None: any number.

    Args:
        settings: The budget.
        spent: What the run has spent, with what is in jobs.
        max_new_tokens: Most tokens of a reply.
    """
    each = spent.longest_prompt + max_new_tokens
    price = price_of_job(spent.longest_prompt, max_new_tokens, settings)
    room: list[float] = []
    if settings.budget_requests is not None:
        room.append(settings.budget_requests - spent.requests)
    if settings.budget_tokens is not None:
        room.append((settings.budget_tokens - spent.prompt_tokens - spent.completion_tokens) // each)
    if settings.budget_money is not None and price:
        room.append((settings.budget_money - cost(spent, settings)) // price)
    return max(0, int(min(room))) if room else None


def _price(prompt_tokens: int, completion_tokens: int, settings: ServerSettings) -> float:
    return (prompt_tokens * settings.prompt_price + completion_tokens * settings.completion_price) / 1e6


def in_words(name: str, spent: Spent, settings: ServerSettings) -> str:
    """What a server was asked in a stage, as a line for the terminal and the report."""
    said = (
        f"{name}: {spent.answers:,} answers, {spent.requests:,} requests ({spent.retries:,} repeated), "
        f"{spent.prompt_tokens:,} prompt and {spent.completion_tokens:,} completion tokens, "
        f"{spent.seconds:,.0f} s of waiting in total"
    )
    said += f", {spent.in_jobs:,} answers by the batch interface" if spent.in_jobs else ""
    money = cost(spent, settings)
    said += f", {money:,.4f} at the given prices" if money else ""
    said += f"; {spent.cut_off:,} answers were cut off at their token limit" if spent.cut_off else ""
    said += f"; it declined {spent.refused:,} questions" if spent.refused else ""
    if settings.logprobs and spent.with_logprob < spent.answers:
        why = "the server refuses them" if spent.without_logprobs else "the server left them out"
        said += f"; log-probabilities of {spent.with_logprob:,} of {spent.answers:,} answers: {why}"
    if spent.answered_by:
        said += f"; answered by {', '.join(spent.answered_by)}, as the server says"
    if spent.without_temperature:
        said += "; the server takes no temperature, so its draws are at its own"
    if spent.without_sampling:
        said += "; the server does not take top_p or top_k, so its draws are among more tokens"
    if spent.without_format:
        said += "; the server does not take response_format, so it was not held to a schema"
    if spent.without_seed:
        said += "; the server does not accept seeds"
    return said


class Budget:
    """The remaining budget; a request is sent only if it fits together with all those in flight.

    The tokens of a request in flight are estimated as the longest prompt so far and a reply of full length.
    """

    def __init__(self, settings: ServerSettings, spent: Spent) -> None:
        """The budget of the settings, minus what the run has spent."""
        self._settings = settings
        self._requests = spent.requests
        self._saved = _price(spent.prompt_tokens, spent.completion_tokens, settings) - cost(spent, settings)
        self._prompt, self._completion = spent.prompt_tokens, spent.completion_tokens
        self._longest = spent.longest_prompt
        self._in_flight: list[int] = []
        self._changed = asyncio.Condition()

    async def take(self, max_new_tokens: int) -> None:
        """Waits until one more request fits.

        Raises:
            WorkFailed: It does not fit even with nothing in flight.
        """
        async with self._changed:
            while limit := self._limit_in_the_way(max_new_tokens):
                if not self._in_flight:
                    raise WorkFailed(self._used_up(limit))
                await self._changed.wait()
            self._requests += 1
            self._in_flight.append(max_new_tokens)

    async def settle(self, max_new_tokens: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Replaces the reservation of a request by its actual usage."""
        async with self._changed:
            self._in_flight.remove(max_new_tokens)
            self._prompt += prompt_tokens
            self._completion += completion_tokens
            self._longest = max(self._longest, prompt_tokens)
            self._changed.notify_all()

    def _limit_in_the_way(self, max_new_tokens: int) -> str | None:
        """The name of the first limit that one more request would exceed."""
        limits = self._settings
        if limits.budget_requests is not None and self._requests >= limits.budget_requests:
            return "budget_requests"
        if limits.budget_tokens is None and limits.budget_money is None:
            return None
        unknown = not self._longest and bool(self._in_flight)  # the first answer shows how long prompts are
        completion = self._completion + sum(self._in_flight) + max_new_tokens
        prompt = self._prompt + self._longest * (len(self._in_flight) + 1)
        if limits.budget_tokens is not None and (unknown or prompt + completion > limits.budget_tokens):
            return "budget_tokens"
        money = _price(prompt, completion, limits) - self._saved
        if limits.budget_money is not None and (unknown or money > limits.budget_money):
            return "budget_money"
        return None

    def _used_up(self, limit: str) -> str:
        spent = _price(self._prompt, self._completion, self._settings) - self._saved
        return (
            f"the run's budget for servers is used up: server.{limit} is {getattr(self._settings, limit):,}, and "
            f"{self._requests:,} requests took {self._prompt + self._completion:,} tokens"
            + (f" and {spent:,.4f} at the given prices" if spent else "")
            + f"; one more might exceed it.\nAnswers so far are kept. To continue, raise server.{limit} in the "
            "configuration and run the same command."
        )
