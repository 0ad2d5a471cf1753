"""Models as stages see them: what was answered before comes from the answer store, and only the rest is asked."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from parityalign.core import (
    Answer,
    Closes,
    Decoding,
    Model,
    Observation,
    Observer,
    Request,
    Said,
    WorkFailed,
    content_id,
    pack_observation,
    unpack_observation,
)
from parityalign.data import Unfit, image_id, read_bytes
from parityalign.engines.batches import answers, observations
from parityalign.engines.spending import Spent
from parityalign.engines.store import AnswerStore, KnownModel

LoadModel = Callable[[], Model]
"""Loads a model into this process, or connects to it."""
Step = Callable[[int, int], None]
"""(items done, items in total)."""
Keep = Callable[[Mapping[str, Said], Spent], None]
"""Takes answers by key, and what they took; they are on the disk when it returns."""

SPECIAL_TOKEN = "special_token"
"""Why a model was not asked: the text holds one of its special tokens, such as an image placeholder."""
DECLINED = "declined"
"""Why there is no answer: the server declined this one question."""
OPAQUE = "opaque"
"""Why there are no signals: the model gives only text."""
_DIGITS = 3
"""Of log-probabilities in records: the last bits hang on the other rows of the batch."""
NOT_SHOWN = "not_shown"
"""The model gave no signals for this text."""


class Asked(NamedTuple):
    """One question to a model."""

    item_id: str
    image: str
    """Path of the image file; empty for a question without a picture."""
    prompt: str
    untrusted: str
    """The untrusted part of the prompt, and of texts that may be trained on later."""
    image_id: str = ""
    """The identity of the image's content; empty where it is not known yet."""
    seed: int = 0
    """Of the draw, if the temperature is above 0."""


@runtime_checkable
class AnswersInAnyOrder(Protocol):
    """A model that takes all questions at once, such as one behind a server."""

    def ask_all(self, requests: Mapping[str, Request], decoding: Decoding, keep: Keep) -> None:
        """Asks everything and hands answers over as they arrive.

        Args:
            requests: By key.
            decoding: How tokens are picked.
            keep: Called again and again, possibly in another thread.
        """


class CachedModel:
    """A model whose answers and signals are kept in an answer store.

    It is loaded when something is asked that the store lacks, and stays loaded until it is freed.

    Attributes:
        identity: What the model is, by content: two models of the same identity give the same answers.
    """

    def __init__(
        self,
        identity: str,
        load: LoadModel,
        store: AnswerStore,
        *,
        load_to_ask: Callable[[int], Model] | None = None,
        shows: bool = True,
        thinking_tokens: int = 0,
        before: Callable[[int, int, int], None] = lambda missing, total, waiting: None,
    ) -> None:
        """Loads nothing yet.

        Args:
            identity: What the model is, by content.
            load: Loads it.
            store: Where its answers are kept.
            load_to_ask: Loads it to be asked so many batches, perhaps into several processes; None: as `load` does.
            shows: Whether it may have signals, not only text.
            thinking_tokens: Tokens that it may think before each answer, besides those of the answer.
            before: Called with (questions that have no answer, questions in total, those without an answer that wait
                at a provider already) before anything is asked; it may raise to prevent that.
        """
        self.identity = identity
        self._before = before
        self._load = load
        self._load_to_ask = load_to_ask
        self._store = store
        self._shows = shows
        self._thinking_tokens = thinking_tokens
        self._model: Model | None = None
        self._remembered: KnownModel | None = None
        self._announced: set[str] = set()

    @property
    def name(self) -> str:
        """The model's name, by which pairs call their teacher; as it was when the store first saw it."""
        return self._known().name

    @property
    def special_tokens(self) -> frozenset[str]:
        """Texts that the model would not read as plain text."""
        return self._known().special_tokens

    def loaded(self, batches: int = 1) -> Model:
        """The model itself, to be asked so many batches; stays loaded."""
        if self._model is None:
            self._model = self._load_to_ask(batches) if self._load_to_ask else self._load()
            known = KnownModel(self._model.name, self._model.special_tokens)
            self._store.remember_model(self.identity, known)
        return self._model

    def load(self) -> Model:
        """Loads the model anew into this process, apart from the one that answers here, for timing."""
        return self._load()

    def free(self) -> bool:
        """Lets go of the loaded model, so that its memory can be used; returns whether there was one."""
        if isinstance(self._model, Closes):
            self._model.close()
        held, self._model = self._model is not None, None
        return held

    def answer(
        self,
        questions: Sequence[Asked],
        *,
        decoding: Decoding,
        batch_size: int,
        on_progress: Step,
    ) -> dict[str, Answer]:
        """The model's answers, by item id in the order of the questions; only those that the store lacks are asked.

        Args:
            questions: With distinct item ids.
            decoding: How tokens are picked.
            batch_size: Questions at a time, for a model in this process; what was asked survives a kill batch by batch.
            on_progress: Called with (questions answered, questions in total); the first call counts what was kept.

        Raises:
            WorkFailed: The model gives no answers; those so far are kept.
            ValueError: Item ids are repeated.
        """
        _refuse_repeated(questions)
        if not questions:
            return {}
        decoding = self._with_room(decoding)
        keys = {
            question.item_id: answer_key(self.identity, question, decoding)
            for question in askable(questions, self.special_tokens)
        }
        requests = {keys[each.item_id]: request_of(each) for each in questions if each.item_id in keys}
        missing = self._store.missing(requests)
        counted = _Counted(keys.values(), missing, len(questions), on_progress)
        if missing and not self._announced.issuperset(missing):
            self._before(len(missing), len(requests), self._store.jobs.waiting(missing))
        self._store.use(requests)  # before they are there: nobody who tidies up drops them meanwhile
        self._ask({key: requests[key] for key in missing}, decoding, batch_size, counted)
        said = dict(self._store.answers(requests))
        return {
            each.item_id: self._answer(each.item_id, said[keys[each.item_id]])
            if each.item_id in keys
            else Answer(item_id=each.item_id, text="", not_asked=SPECIAL_TOKEN)
            for each in questions
        }

    def announce(self, *parts: tuple[Sequence[Asked], Decoding]) -> None:
        """Tells how many of the questions will be asked, for work that asks them in parts; `answer` then tells no more.

        Nothing is told of questions that were announced before.

        Args:
            parts: The questions, and how their answers are decoded.
        """
        keys = [key for questions, decoding in parts for key in self._keys(questions, decoding)]
        missing = self._store.missing(keys)
        if missing and not self._announced.issuperset(missing):
            self._before(len(missing), len({*keys}), self._store.jobs.waiting(missing))
        self._announced |= {*missing}

    def lacking(self, questions: Sequence[Asked], *, decoding: Decoding) -> int:
        """How many of the questions would be asked; loads nothing where the store knows the model."""
        return len(self._store.missing(self._keys(questions, decoding)))

    def _keys(self, questions: Sequence[Asked], decoding: Decoding) -> list[str]:
        decoding = self._with_room(decoding)
        asked = askable(questions, self.special_tokens) if questions else []
        return [answer_key(self.identity, each, decoding) for each in asked]

    def observe(
        self, told: Sequence[tuple[Asked, str]], *, batch_size: int, on_progress: Step
    ) -> dict[str, Observation | str]:
        """The model scored teacher-forced on each text as its own reply, by item id; only what the store lacks is run.

        Args:
            told: Questions with distinct item ids, each with a text.
            batch_size: Texts at a time.
            on_progress: Called with (texts scored, texts in total).

        Returns:
            The signals, or a reason code why there are none.
        """
        _refuse_repeated([question for question, _ in told])
        if not self._shows:
            return {question.item_id: OPAQUE for question, _ in told}
        if not told:
            return {}
        asked = [(question, text) for question, text in told if not self._is_unsafe(question, text)]
        keys = {question.item_id: signal_key(self.identity, question, text) for question, text in asked}
        there = dict(self._store.signals(keys.values()))
        distinct = {keys[question.item_id]: (question, text) for question, text in asked}
        missing = [each for key, each in distinct.items() if key not in there]
        if missing:
            self._before(len(missing), len(distinct), 0)
        if missing and not isinstance(self.loaded(-(-len(missing) // batch_size)), Observer):
            return {question.item_id: OPAQUE for question, _ in told}
        self._store.use(keys.values())  # as answers are
        done = len(told) - len(missing)
        for count in self._score(missing, batch_size, keys):
            done += count
            on_progress(done, len(told))
        on_progress(len(told), len(told))
        content = dict(self._store.signals(keys.values()))
        return {
            question.item_id: _observation(content[keys[question.item_id]])
            if question.item_id in keys
            else SPECIAL_TOKEN
            for question, _ in told
        }

    def _answer(self, item_id: str, said: Said) -> Answer:
        if said.refused:
            return Answer(item_id=item_id, text="", not_asked=f"{DECLINED}: {said.refused}")
        # Of a model that thinks, it is mostly that of its thoughts.
        logprob = None if said.logprob is None or self._thinking_tokens else float(f"{said.logprob:.{_DIGITS}g}")
        return Answer(item_id=item_id, text=said.text, cut_off=said.finish == "length", logprob=logprob)

    def _with_room(self, decoding: Decoding) -> Decoding:
        """The decoding with room for thoughts."""
        return replace(decoding, max_new_tokens=decoding.max_new_tokens + self._thinking_tokens)

    def _known(self) -> KnownModel:
        if self._remembered is None:
            known = self._store.model(self.identity)
            if known is None:
                model = self.loaded()
                known = KnownModel(model.name, model.special_tokens)
            self._remembered = known
        return self._remembered

    def _ask(self, missing: Mapping[str, Request], decoding: Decoding, batch_size: int, counted: "_Counted") -> None:
        def keep(answers: Mapping[str, Said], spent: Spent) -> None:
            self._store.keep(self.identity, answers, spent)
            counted.add(answers)

        counted.add(())
        if not missing:
            return
        model = self.loaded(-(-len(missing) // batch_size))
        if isinstance(model, AnswersInAnyOrder):
            model.ask_all(missing, decoding, keep)
            return
        names = list(missing)
        for batch in answers(model, [*missing.values()], decoding, batch_size):
            said = {names[place]: reply for place, reply in zip(batch.places, batch.said, strict=True)}
            keep(said, Spent(answers=len(said), seconds=batch.seconds))

    def _score(self, missing: Sequence[tuple[Asked, str]], batch_size: int, keys: Mapping[str, str]) -> Iterator[int]:
        """Keeps the signals of texts; yields how many there are of each batch."""
        if not missing:
            return
        model = self.loaded()
        if not isinstance(model, Observer):
            return
        told = [(request_of(question), text) for question, text in missing]
        for batch in observations(model, told, batch_size):
            packed = [None if seen is None else pack_observation(seen) for seen in batch.seen]
            names = [keys[missing[place][0].item_id] for place in batch.places]
            self._store.keep_signals(self.identity, dict(zip(names, packed, strict=True)))
            yield len(names)

    def _is_unsafe(self, question: Asked, text: str) -> bool:
        return holds_special_token(f"{question.untrusted}\n{text}", self.special_tokens)


class TwoModels(NamedTuple):
    """The two models of a run."""

    student: CachedModel
    """The student before levelling."""
    teacher: CachedModel
    second_teacher: CachedModel | None = None
    """One that has to agree with gaps."""


def cached(model: Model, store: AnswerStore | None = None) -> CachedModel:
    """A loaded model with an answer store, by default in memory; its name is its identity."""
    return CachedModel(model.name, lambda: model, store or AnswerStore())


def answer_key(identity: str, question: Asked, decoding: Decoding) -> str:
    """What an answer is an answer to: model, content of the image, prompt, decoding and draw."""
    drawn = f"{decoding.temperature} {question.seed}" if decoding.temperature > 0 else "greedy"
    if decoding.temperature > 0 and decoding.top_p < 1:
        drawn += f" top_p {decoding.top_p}"
    if decoding.temperature > 0 and decoding.top_k:
        drawn += f" top_k {decoding.top_k}"
    return content_id(identity, _content_of(question), question.prompt, drawn, str(decoding.max_new_tokens))


def signal_key(identity: str, question: Asked, text: str) -> str:
    """What signals belong to: model, content of the image, prompt, and the text that was scored."""
    return content_id("signals", identity, _content_of(question), question.prompt, text)


def model_replies(model: Model, requests: Sequence[Request], decoding: Decoding) -> list[str]:
    """The model's replies, for timing: nothing is kept."""
    return model.generate(requests, decoding) if requests else []


def askable(questions: Iterable[Asked], special_tokens: Collection[str]) -> list[Asked]:
    """The questions that a model with these special tokens would read as plain text."""
    return [question for question in questions if not holds_special_token(question.untrusted, special_tokens)]


def request_of(question: Asked) -> Request:
    """The request to the model."""
    return Request(question.image, question.prompt, question.seed)


def holds_special_token(text: str, special_tokens: Collection[str]) -> bool:
    """Whether one of the tokens occurs in the text."""
    return any(token in text for token in special_tokens if token)


class _Counted:
    """Progress in questions, several of which may share an answer."""

    def __init__(self, keys: Iterable[str], missing: Collection[str], total: int, on_progress: Step) -> None:
        waiting = set(missing)
        self._sharing = Counter(key for key in keys if key in waiting)
        self._done, self._total, self._on_progress = total - self._sharing.total(), total, on_progress

    def add(self, answered: Iterable[str]) -> None:
        """Counts the questions that these answers belong to, and tells."""
        self._done += sum(self._sharing[key] for key in answered)
        self._on_progress(self._done, self._total)


def _observation(content: bytes | None) -> Observation | str:
    return NOT_SHOWN if content is None else unpack_observation(content)


def _content_of(question: Asked) -> str:
    if question.image_id or not question.image:
        return question.image_id
    try:
        status = os.stat(question.image)
        return _image_id(question.image, status.st_size, status.st_mtime_ns)
    except OSError as problem:
        raise WorkFailed(f"cannot read the image {question.image}: {problem.strerror}") from problem
    except Unfit as problem:
        raise WorkFailed(f"cannot read the image {question.image}: {problem}") from problem


@lru_cache(1 << 20)
def _image_id(path: str, _size: int, _written: int) -> str:
    """The identity of a file's content, read once while the file stays as it is."""
    return image_id(read_bytes(Path(path)))


def _refuse_repeated(questions: Sequence[Asked]) -> None:
    repeated = len(questions) - len({question.item_id for question in questions})
    if repeated:
        raise ValueError(f"{repeated} questions repeat the id of another")
