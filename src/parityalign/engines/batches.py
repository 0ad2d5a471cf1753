"""Questions in batches: one after the other in this process, or several at once where a model works on several."""

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

from parityalign.core import (
    Decoding,
    LooksAhead,
    Model,
    Observation,
    Observer,
    Request,
    Said,
    Scoring,
    groups_of,
)

Told = tuple[Request, str]
"""A request, and a text that is scored as the reply to it."""


class AnsweredBatch(NamedTuple):
    """The replies to some of the requests."""

    places: Sequence[int]
    """Their indices among all requests."""
    said: Sequence[Said]
    seconds: float


class ObservedBatch(NamedTuple):
    """What was observed of some of the texts."""

    places: Sequence[int]
    """Their indices among all texts."""
    seen: Sequence[Observation | None]


@runtime_checkable
class SeveralAtOnce(Protocol):
    """A model that works on several batches at once, such as one with replicas."""

    def answers(self, requests: Sequence[Request], decoding: Decoding, batch_size: int) -> Iterator[AnsweredBatch]:
        """The replies, batch by batch as they are done; the batches are those of `groups_of`."""

    def observations(self, told: Sequence[Told], batch_size: int) -> Iterator[ObservedBatch]:
        """The texts' observations, likewise."""


def answers(model: Model, requests: Sequence[Request], decoding: Decoding, batch_size: int) -> Iterator[AnsweredBatch]:
    """The model's replies, batch by batch as they are done.

    Args:
        model: Asked.
        requests: What it is asked.
        decoding: How it picks tokens.
        batch_size: Requests at a time.
    """
    if isinstance(model, SeveralAtOnce):
        yield from model.answers(requests, decoding, batch_size)
        return
    for places, following in _batches(len(requests), batch_size):
        announce(model, [requests[place] for place in following])
        began = time.monotonic()
        said = replies(model, [requests[place] for place in places], decoding)
        yield AnsweredBatch(places, said, time.monotonic() - began)


def observations(model: Observer, told: Sequence[Told], batch_size: int) -> Iterator[ObservedBatch]:
    """The model's observations of texts as its own replies, likewise.

    Args:
        model: Scores them.
        told: The texts.
        batch_size: Texts at a time.
    """
    if isinstance(model, SeveralAtOnce):
        yield from model.observations(told, batch_size)
        return
    for places, following in _batches(len(told), batch_size):
        announce(model, [told[place][0] for place in following])
        yield ObservedBatch(places, model.observe([told[place] for place in places]))


def announce(model: object, requests: Sequence[Request]) -> None:
    """Announces the next batch to a model that prepares requests ahead."""
    if requests and isinstance(model, LooksAhead):
        model.expect(requests)


def replies(model: Model, requests: Sequence[Request], decoding: Decoding) -> list[Said]:
    """The model's replies, with their log-probabilities where it tells them."""
    if isinstance(model, Scoring):
        return [Said(text, logprob=logprob) for text, logprob in model.generate_scored(requests, decoding)]
    return [Said(text) for text in model.generate(requests, decoding)]


def _batches(count: int, batch_size: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """The places of each batch, with those of the next."""
    return pairwise([*groups_of(range(count), batch_size), []])
