"""The ledger of a run's requests to remote models: each question's answer and cost, and the budget.

It ensures that nothing is asked or paid twice. A stage writes a batch when it is complete; the ledger stores each
answer as soon as it arrives, so that an interrupted batch is completed without asking again.
"""

import asyncio
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from parityalign.config import ServerSettings
from parityalign.core import Record, Stream, WorkFailed

ANSWERS = "answers.jsonl"


class Exchange(Record):
    """One question and its outcome: a line of the ledger."""

    key: str
    """Hash of model, image, prompt and decoding."""
    stage: str
    model: str
    """The model's name; for a served one, URL and served name."""
    text: str | None = None
    """None: there was no answer."""
    finish: str = ""
    requests: int = 0
    """HTTP requests sent for it, including repeated ones."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """From the first request to the answer, waiting included."""
    logprob: float | None = None
    refused: tuple[str, ...] = ()
    """Optional fields of its request that were left out, since the server refuses them."""


@dataclass
class Spent:
    """What a number of exchanges took."""

    answers: int = 0
    requests: int = 0
    retries: int = 0
    """Repeated requests: those beyond the first of each question."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Summed over the questions, many of which are in flight concurrently."""
    cut_off: int = 0
    """Answers cut off at their token limit."""
    with_logprob: int = 0

    def add(self, exchange: Exchange) -> None:
        """Adds one exchange."""
        self.answers += exchange.text is not None
        self.requests += exchange.requests
        self.retries += max(0, exchange.requests - 1)
        self.prompt_tokens += exchange.prompt_tokens
        self.completion_tokens += exchange.completion_tokens
        self.seconds += exchange.seconds
        self.cut_off += exchange.finish == "length"
        self.with_logprob += exchange.logprob is not None

    def __add__(self, other: "Spent") -> "Spent":
        """Both together."""
        return Spent(**{key: number + getattr(other, key) for key, number in asdict(self).items()})

    def as_counts(self) -> dict[str, int | float]:
        """The numbers by their names, for a manifest."""
        return {**asdict(self), "seconds": round(self.seconds, 1)}


def cost(prompt_tokens: int, completion_tokens: int, settings: ServerSettings) -> float:
    """What tokens cost at the given prices."""
    return (prompt_tokens * settings.prompt_price + completion_tokens * settings.completion_price) / 1e6


def in_words(name: str, usage: Spent, settings: ServerSettings, refused: set[str]) -> str:
    """What a model was asked in a stage, as a line for the terminal and the report."""
    said = (
        f"{name}: {usage.answers:,} answers, {usage.requests:,} requests ({usage.retries:,} repeated), "
        f"{usage.prompt_tokens:,} prompt and {usage.completion_tokens:,} completion tokens, "
        f"{usage.seconds:,.0f} s of waiting in total"
    )
    money = cost(usage.prompt_tokens, usage.completion_tokens, settings)
    said += f", {money:,.4f} at the given prices" if money else ""
    said += f"; {usage.cut_off:,} answers were cut off at their token limit" if usage.cut_off else ""
    if settings.logprobs and usage.with_logprob < usage.answers:
        why = "the server refuses them" if "logprobs" in refused else "the server left them out"
        said += f"; log-probabilities of {usage.with_logprob:,} of {usage.answers:,} answers: {why}"
    if "seed" in refused:
        said += "; the server does not accept seeds"
    return said


class Ledger:
    """Answers and costs of a run, in an append-only file; without a folder, in memory.

    Attributes:
        total: Totals of all exchanges.
        by_stage: The same by (stage, model).
        longest_prompt: Tokens of the longest prompt so far.
        refused: By (stage, model), optional fields of requests that the server refuses.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Reads what an earlier process left in the folder."""
        self.total = Spent()
        self.by_stage: defaultdict[tuple[str, str], Spent] = defaultdict(Spent)
        self.longest_prompt = 0
        self.refused: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._texts: dict[str, str] = {}
        self._unwritten: list[Exchange] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._stream = Stream(folder / ANSWERS, Exchange, read_only=False) if folder else None
        for exchange in self._stream or ():
            self._count(exchange)

    def text(self, key: str) -> str | None:
        """The answer to a question; None if there is none yet."""
        return self._texts.get(key)

    def of_stage(self, stage: str) -> tuple[dict[str, Spent], dict[str, set[str]]]:
        """What each model was asked in a stage, those parts of it included that are called `STAGE, PART`.

        Returns:
            By model: its usage, and the fields that its server refused.
        """
        used: defaultdict[str, Spent] = defaultdict(Spent)
        refused: defaultdict[str, set[str]] = defaultdict(set)
        for (of, name), usage in self.by_stage.items():
            if of == stage or of.startswith(f"{stage}, "):
                used[name] = used[name] + usage
                refused[name] |= self.refused[of, name]
        return dict(used), dict(refused)

    def known_as(self, location: str) -> str | None:
        """`LOCATION#NAME` of the only model at a location that was asked before; None if there is no such one."""
        place = f"{location.rstrip('/')}#"
        found = {name for _, name in self.by_stage if name.startswith(place)}
        return found.pop() if len(found) == 1 else None

    def add(self, exchange: Exchange) -> None:
        """Adds an exchange; the next `write` puts it on disk."""
        self._count(exchange)
        self._unwritten.append(exchange)

    def unwritten(self) -> list[Exchange]:
        """The exchanges that are not on disk yet; the caller passes them to `write`."""
        taken, self._unwritten = self._unwritten, []
        return taken

    def write(self, exchanges: list[Exchange]) -> None:
        """Writes exchanges to disk; may be called from another thread.

        Raises:
            WorkFailed: The disk refused.
        """
        if self._stream:
            self._stream.append(exchanges)

    def _count(self, exchange: Exchange) -> None:
        self.total.add(exchange)
        self.by_stage[exchange.stage, exchange.model].add(exchange)
        self.longest_prompt = max(self.longest_prompt, exchange.prompt_tokens)
        self.refused[exchange.stage, exchange.model].update(exchange.refused)
        if exchange.text is not None:
            self._texts[exchange.key] = exchange.text


class Budget:
    """The remaining budget; a request is sent only if it fits together with all those in flight.

    The tokens of a request in flight are estimated as the longest prompt so far and a reply of full length.
    """

    def __init__(self, settings: ServerSettings, ledger: Ledger) -> None:
        """The budget of the settings, minus what was spent according to the ledger."""
        self._settings = settings
        self._requests = ledger.total.requests
        self._prompt, self._completion = ledger.total.prompt_tokens, ledger.total.completion_tokens
        self._longest = ledger.longest_prompt
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
        if limits.budget_money is not None and (unknown or cost(prompt, completion, limits) > limits.budget_money):
            return "budget_money"
        return None

    def _used_up(self, limit: str) -> str:
        spent = cost(self._prompt, self._completion, self._settings)
        return (
            f"the run's budget for servers is used up: server.{limit} is {getattr(self._settings, limit):,}, and "
            f"{self._requests:,} requests took {self._prompt + self._completion:,} tokens"
            + (f" and {spent:,.4f} at the given prices" if spent else "")
            + f"; one more might exceed it.\nAnswers so far are kept. To continue, raise server.{limit} in the "
            "configuration and run the same command."
        )
