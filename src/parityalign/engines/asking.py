"""Steps of several stages: ask a model questions and write the records; both resume after a kill."""

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

from parityalign.core import Answer, Decoding, LooksAhead, Model, Record, Request, Stream, resume_in_batches

R = TypeVar("R", bound=Record)
T = TypeVar("T")

LoadModel = Callable[[], Model]
"""Loads a model. Stages load one only if something is left to ask, and free it before the next."""


class ModelLoaders(NamedTuple):
    """The two models of a run."""

    student: LoadModel
    """The student before levelling."""
    teacher: LoadModel


SPECIAL_TOKEN = "special_token"
"""Why a model was not asked: the text holds one of its special tokens, such as an image placeholder."""


class Asked(NamedTuple):
    """One question to a model."""

    item_id: str
    image: str
    prompt: str
    untrusted: str
    """The untrusted part of the prompt, and of texts that may be trained on later."""


def answer_all(
    stream: Stream[Answer],
    questions: Sequence[Asked],
    load: LoadModel,
    *,
    max_new_tokens: int,
    batch_size: int,
    on_progress: Callable[[int, int], None],
) -> dict[str, Answer]:
    """One model's greedy answers to all questions, by item id, in the order of the questions."""
    model, decoding = cache(load), Decoding(max_new_tokens)
    after = next_batch_after(questions, batch_size, lambda question: question.item_id)

    def work(batch: Sequence[Asked]) -> list[Answer]:
        announce(model(), [request_of(question) for question in after(batch)])
        return _answer(model(), batch, decoding)

    resume_in_batches(
        stream,
        questions,
        item_id=lambda question: question.item_id,
        record_id=lambda answer: answer.item_id,
        batch_size=batch_size,
        work=work,
        on_progress=on_progress,
    )
    return {answer.item_id: answer for answer in stream}


def model_replies(model: Model, requests: Sequence[Request], decoding: Decoding) -> list[str]:
    """The model's replies; lone surrogates, which cannot be written to a file, become `?`."""
    texts = model.generate(requests, decoding) if requests else []
    return [text.encode("utf-8", "replace").decode("utf-8") for text in texts]


def announce(model: Model, requests: Sequence[Request]) -> None:
    """Announces the next batch to a model that prepares requests ahead."""
    if isinstance(model, LooksAhead):
        model.expect(requests)


def next_batch_after(
    items: Sequence[T], batch_size: int, identity: Callable[[T], str]
) -> Callable[[Sequence[T]], Sequence[T]]:
    """For a batch of the items, the batch after it; empty after the last."""
    places = {identity(item): place for place, item in enumerate(items)}

    def after(batch: Sequence[T]) -> Sequence[T]:
        end = places[identity(batch[-1])] + 1
        return items[end : end + batch_size]

    return after


def _answer(model: Model, batch: Sequence[Asked], decoding: Decoding) -> list[Answer]:
    asked = askable(batch, model)
    texts = model_replies(model, [request_of(question) for question in asked], decoding)
    text_of = {question.item_id: text for question, text in zip(asked, texts, strict=True)}
    return [
        Answer(item_id=question.item_id, text=text_of[question.item_id])
        if question.item_id in text_of
        else Answer(item_id=question.item_id, text="", not_asked=SPECIAL_TOKEN)
        for question in batch
    ]


def askable(questions: Sequence[Asked], model: Model) -> list[Asked]:
    """The questions that the model would read as plain text."""
    return [question for question in questions if not holds_special_token(question.untrusted, model.special_tokens)]


def request_of(question: Asked) -> Request:
    """The requests to the model."""
    return Request(question.image, question.prompt)


def holds_special_token(text: str, special_tokens: Collection[str]) -> bool:
    """Whether one of the tokens occurs in the text."""
    return any(token in text for token in special_tokens if token)
