"""Remote models: many questions in flight, within a budget; answers are handed over as they arrive."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from parityalign.config import Hosting, LoadingSettings, ServerSettings, backend_of, split_model
from parityalign.core import (
    Connected,
    Decoding,
    Interrupted,
    Remote,
    Request,
    Said,
    Started,
    TakesJobs,
    UserError,
    WorkFailed,
    completed,
)
from parityalign.engines.asking import Keep
from parityalign.engines.attempts import Attempts, OneRefused, Sent, declines_too_many, rest
from parityalign.engines.jobs import Jobs
from parityalign.engines.probe import DECODING, require_sight
from parityalign.engines.spending import Budget, Spent
from parityalign.engines.store import AnswerStore

_SECONDS_BETWEEN_WRITES = 0.2


def connect(
    spec: str,
    loading: LoadingSettings,
    settings: ServerSettings,
    store: AnswerStore,
    hosting: Hosting | None = None,
) -> "RemoteModel":
    """The remote model of a spec; nothing is asked yet, and no server started.

    Without `#NAME` in the spec, it is the model at that address whose answers the store holds, if there is just one.

    Raises:
        UserError: It cannot be reached, or its backend is not remote.
    """
    backend, (_, location) = backend_of(spec), split_model(spec)
    settings = settings.model_copy(update={"max_concurrency": settings.max_concurrency or backend.max_concurrency})
    reach = backend.connect
    if backend.serve and hosting:
        remote = backend.serve.connect(location, loading, settings, hosting)
        return RemoteModel(remote, settings.model_copy(update={"batch": None}), store)
    if reach is None:
        raise UserError(f"the model {spec} runs in this process; there is nothing to connect to")
    remote = reach(store.place_of(location), loading, settings)
    if settings.batch and not isinstance(remote, TakesJobs):
        raise UserError(f"server.batch is set, but models of the kind of {spec} have no batch interface. Leave it out.")
    return RemoteModel(remote, settings, store, hosting.tell if hosting else lambda line: None)


class RemoteModel:
    """A `Model` made of a `Remote`."""

    def __init__(
        self,
        remote: Remote,
        settings: ServerSettings,
        store: AnswerStore,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Wraps a remote model; nothing is sent before something is asked.

        Args:
            remote: The model.
            settings: How it is asked, and the budget.
            store: Has what the run has spent so far, on all models, and the jobs that are at providers.
            tell: Called with what becomes of jobs.
        """
        self._remote = remote
        self._settings = settings
        self._store = store
        self._tell = tell
        self._sees = False
        self._first: Callable[[Sequence[Request]], None] | None = None

    @property
    def name(self) -> str:
        """As of the remote model."""
        return self._remote.name

    @property
    def special_tokens(self) -> frozenset[str]:
        """As of the remote model."""
        return self._remote.special_tokens

    def before_first(self, work: Callable[[Sequence[Request]], None]) -> None:
        """Has something done with the first requests before they are asked, once."""
        self._first = work

    def close(self) -> None:
        """Ends the server, if it is the run's own; the next question would start it again."""
        if isinstance(self._remote, Started):
            self._remote.close()

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order; nothing is kept."""
        said: dict[str, Said] = {}
        numbered = {str(place): request for place, request in enumerate(requests)}
        self.ask_all(numbered, decoding, lambda answers, _: said.update(answers))
        return [said[str(place)].text for place in range(len(requests))]

    def look(self) -> None:
        """Tests that it answers and sees pictures, by two or three questions.

        Raises:
            UserError: It does not; the message says what it does.
        """
        asking = _Asking(self._remote, self._settings, Budget(self._settings, Spent()), lambda answers, spent: None)
        completed(lambda: asking.ask({}, DECODING, look=True))
        self._sees = True

    def ask_all(self, requests: Mapping[str, Request], decoding: Decoding, keep: Keep) -> None:
        """Asks everything, as far as server and budget allow.

        Args:
            requests: By key.
            decoding: How tokens are picked.
            keep: Takes the answers as they arrive, in groups, since syncing a file takes milliseconds.

        Raises:
            WorkFailed: The model does not answer properly, or the budget is used up; answers so far were handed over.
        """
        if not requests:
            return
        first, self._first = self._first, None
        if first:
            first([*requests.values()])
        try:
            completed(lambda: self._ask_all(requests, decoding, keep))
        except KeyboardInterrupt:
            waiting = self._store.jobs.waiting(requests)
            if not waiting:
                raise
            raise Interrupted(
                f"{waiting:,} questions wait at the provider of {self.name}, which goes on. "
                "The same command takes the answers."
            ) from None

    async def _ask_all(self, requests: Mapping[str, Request], decoding: Decoding, keep: Keep) -> None:
        # What is at the provider already is paid: it is waited for, also where the settings want no more jobs.
        wanted = self._settings.batch or self._store.jobs.waiting(requests)
        if wanted and isinstance(self._remote, TakesJobs):
            jobs = Jobs(self.name, self._remote.desk, self._settings, self._store, keep, self._tell)
            async with _connection(self._remote):
                requests = await jobs.answer(
                    requests, decoding, lambda pending: self._first_of(pending, decoding, keep)
                )
        await self._one_by_one(requests, decoding, keep)

    async def _first_of(self, pending: Mapping[str, Request], decoding: Decoding, keep: Keep) -> str:
        """Asks one question at once, about the largest picture: by its prompt the budget for jobs is reckoned."""
        key = max(pending, key=lambda each: _size(pending[each].image))
        await self._one_by_one({key: pending[key]}, decoding, keep)
        return key

    async def _one_by_one(self, requests: Mapping[str, Request], decoding: Decoding, keep: Keep) -> None:
        if requests:
            spent = sum(self._store.spent().values(), Spent())
            spent += self._store.jobs.held(spent.longest_prompt)
            asking = _Asking(self._remote, self._settings, Budget(self._settings, spent), keep)
            look = not self._sees and any(request.image for request in requests.values())
            await asking.ask(requests, decoding, look=look)
            self._sees = self._sees or look


class _Asking:
    """The questions of one call, in one event loop."""

    def __init__(self, remote: Remote, settings: ServerSettings, budget: Budget, keep: Keep) -> None:
        self._remote, self._settings, self._hand_over = remote, settings, keep
        self._attempts = Attempts(remote, settings, budget)
        self._arrived: dict[str, Said] = {}
        self._spent = Spent()
        self._answered = self._declined = 0
        self._failure: Exception | None = None

    async def ask(self, requests: Mapping[str, Request], decoding: Decoding, *, look: bool) -> None:
        """Tests, if wanted, that the model sees pictures, and asks everything."""
        done = asyncio.Event()
        async with _connection(self._remote):
            keeper = asyncio.create_task(self._keep(done))
            try:
                if look:
                    await require_sight(self._remote.name, self._asked)
                await self._ask_all(requests, decoding)
            finally:
                done.set()
                await keeper
        if problem := self._failure or self._attempts.problem:
            raise problem

    async def _ask_all(self, requests: Mapping[str, Request], decoding: Decoding) -> None:
        waiting = iter(requests.items())

        async def work() -> None:
            for key, request in waiting:  # one iterator for all workers, so each question is taken once
                try:
                    self._arrived[key] = await self._asked(request, decoding)
                except OneRefused as problem:
                    self._decline(key, problem)
                except UserError as problem:
                    self._attempts.stop(problem)
                if self._attempts.problem:
                    return

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._settings.requests, len(requests))):
                workers.create_task(work())

    def _decline(self, key: str, problem: OneRefused) -> None:
        """Sets one question aside, with the server's words; too many of them stop the work."""
        self._arrived[key] = Said("", refused=problem.told)
        self._spent += Spent(refused=1)
        self._declined += 1
        if declines_too_many(self._declined, self._answered):
            self._attempts.stop(
                WorkFailed(
                    f"{self._remote.name} declined {self._declined:,} questions and answered {self._answered:,}. "
                    f"The last time: {problem}"
                )
            )

    async def _asked(self, request: Request, decoding: Decoding) -> Said:
        """Asks one question and books what it took, also where nothing came of it."""
        sent, began = Sent(), time.monotonic()
        said: Said | None = None
        try:
            said = await self._attempts.ask(request, decoding, sent)
            self._answered += 1
            return said
        finally:
            if sent.requests:
                spent = Spent.on(said, requests=sent.requests, seconds=time.monotonic() - began)
                self._spent += spent.by_another(said.model if said else "", self._remote.name)

    async def _keep(self, done: asyncio.Event) -> None:
        """Hands over what has arrived, again and again."""
        while True:
            last = done.is_set()
            answers, self._arrived = self._arrived, {}
            spent, self._spent = self._spent, Spent()
            if answers or spent.requests:
                await self._handed_over(answers, spent)
            if last:
                return
            await rest(done, _SECONDS_BETWEEN_WRITES)

    async def _handed_over(self, answers: dict[str, Said], spent: Spent) -> None:
        """Hands answers over. If that fails, whatever the cause, nothing more is asked."""
        try:
            await asyncio.to_thread(self._hand_over, answers, spent)
        except UserError as problem:  # they are not kept: once more in the end
            self._arrived, self._spent = answers | self._arrived, spent + self._spent
            self._attempts.stop(problem)
        except Exception as problem:  # noqa: BLE001 - of whoever is told of them, when they were kept
            self._failure = self._failure or problem
            self._attempts.stop(WorkFailed(f"what was answered could not be told: {problem}"))


def _connection(remote: Remote) -> AbstractAsyncContextManager[object]:
    return remote.connection() if isinstance(remote, Connected) else nullcontext()


def _size(path: str) -> int:
    """Bytes of a picture; 0 where there is none, which is told when it is read."""
    try:
        return os.stat(path).st_size if path else 0
    except OSError:
        return 0
