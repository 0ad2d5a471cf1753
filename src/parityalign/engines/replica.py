"""One of several processes with the same model: what it is sent, what it does, what it sends back."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from parityalign import models
from parityalign.config import LoadingSettings
from parityalign.core import (
    Decoding,
    Described,
    Model,
    Observation,
    Observer,
    PictureRoom,
    Post,
    Request,
    Said,
    keeping_pictures,
)
from parityalign.engines.batches import announce, replies


class ModelToLoad(NamedTuple):
    """What a replica loads."""

    spec: str
    loading: LoadingSettings
    processes: int
    """How many load it."""
    pictures: tuple[Path, int] | None
    """The folder in which prepared pictures are kept, and the most bytes of them all. None: nowhere."""


class Ready(NamedTuple):
    """The model is in memory."""

    name: str
    special_tokens: frozenset[str]
    facts: Mapping[str, str]


class Batch(NamedTuple):
    """Work for a replica."""

    places: Sequence[int]
    """The requests' indices among all that are asked."""
    requests: Sequence[Request]
    texts: Sequence[str] | None
    """To be scored as the replies. None: it replies itself."""
    decoding: Decoding | None
    """None where texts are scored."""


class Done(NamedTuple):
    """What came of a batch."""

    made: Sequence[Said] | Sequence[Observation | None]
    """A reply to each request, or what was observed of each text."""
    seconds: float


class Told(NamedTuple):
    """A line for whoever runs this."""

    text: str


def load_and_answer(model: ModelToLoad, post: Post) -> None:
    """Loads the model and answers with it; the work of a `core.Worker`."""
    room = PictureRoom(*model.pictures, partial(_tell, post), model.processes) if model.pictures else None
    threads = models.usual_workers(model.processes) if model.loading.workers is None else model.loading.workers
    with keeping_pictures(room):
        answer(models.load_model(model.spec, model.loading.model_copy(update={"workers": threads})), post)


def answer(model: Model, post: Post) -> None:
    """Answers batches until the process is ended.

    Args:
        model: Asked.
        post: To the process that asks.
    """
    post.send(Ready(model.name, model.special_tokens, model.facts if isinstance(model, Described) else {}))
    held = deque[Batch]()
    while True:
        held.extend(each for each in post.received(wait=not held) if isinstance(each, Batch))
        batch = held.popleft()
        if held:
            announce(model, held[0].requests)
        began = time.monotonic()
        post.send(Done(_made(model, batch), time.monotonic() - began))


def _made(model: Model, batch: Batch) -> Sequence[Said] | Sequence[Observation | None]:
    if batch.decoding is not None:
        return replies(model, batch.requests, batch.decoding)
    if isinstance(model, Observer) and batch.texts is not None:
        return model.observe([*zip(batch.requests, batch.texts, strict=True)])
    return [None] * len(batch.requests)


def _tell(post: Post, text: str) -> None:
    post.send(Told(text))
