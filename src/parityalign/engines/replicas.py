"""A model with a replica in each of several processes, such as one on each GPU, here or on the nodes of a cluster.

This process hands out batches and takes what comes of them. Batches are those that one process would make, and each
goes through one replica as a whole, so the replies are those of one process.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from parityalign.core import (
    Decoding,
    Observation,
    Request,
    Said,
    WorkerEnded,
    WorkFailed,
    Working,
    Workplace,
    groups_of,
)
from parityalign.engines.batches import AnsweredBatch, ObservedBatch, Told
from parityalign.engines.replica import Batch, Done, Ready
from parityalign.engines.replica import Told as Line

_AT_ONCE = 2
"""Batches that a replica holds: one in work, and one whose pictures it prepares meanwhile."""
_MOST_ENDED = 3
"""Processes that may end at one question before it is set aside."""
_MOST_STARTED_AGAIN, _EACH_AGAIN = 10, 3
"""Processes that are started in place of others while the model is in memory: so many, or so many for each place."""
_SHOWN = 300
"""Characters of a prompt in a message."""
_SET_ASIDE = f"{_MOST_ENDED} processes ended while they were asked this"


@dataclass
class _Task:
    """A batch, and how often a process ended at it."""

    batch: Batch
    ended: int = 0


@dataclass
class _Replica:
    """A process, and what it was given; the first of that is in work."""

    worker: Working
    number: int
    held: deque[_Task] = field(default_factory=deque)
    ready: bool = False


class Replicas:
    """A `Model`, `Observer` and `SeveralAtOnce` whose replicas are started when there are batches for them.

    Attributes:
        facts: How the model runs in each process, for manifests; empty until one is ready.
    """

    def __init__(
        self,
        spec: str,
        workplace: Workplace[Any],
        tell: Callable[[str], None],
        batches: int = 1,
    ) -> None:
        """Starts nothing yet.

        Args:
            spec: The model, for messages.
            workplace: Where there are processes that do `load_and_answer` with a model, or the like.
            tell: Told of processes that ended.
            batches: How many will be asked for first: as many processes are started at once.
        """
        self.facts: Mapping[str, str] = {}
        self._spec, self._workplace = spec, workplace
        self._tell = tell
        self._batches = batches
        self._replicas: list[_Replica] = []
        self._again = 0
        self._known: Ready | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self._first().name

    @property
    def special_tokens(self) -> frozenset[str]:
        """Texts that its processor would not read as plain text."""
        return self._first().special_tokens

    @property
    def ready(self) -> int:
        """How many of its processes have said that they have the model in memory."""
        return sum(each.ready for each in self._replicas)

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order."""
        batches = self.answers(requests, decoding, self._even(len(requests)))
        said = {place: one.text for batch in batches for place, one in zip(batch.places, batch.said, strict=True)}
        return [said[place] for place in range(len(requests))]

    def observe(self, told: Sequence[Told]) -> list[Observation | None]:
        """Each text scored as the model's own reply, in order."""
        batches = self.observations(told, self._even(len(told)))
        seen = {place: one for batch in batches for place, one in zip(batch.places, batch.seen, strict=True)}
        return [seen[place] for place in range(len(told))]

    def answers(self, requests: Sequence[Request], decoding: Decoding, batch_size: int) -> Iterator[AnsweredBatch]:
        """The replies, batch by batch as they are done.

        A question at which three processes ended is refused, as a server declines one.

        Raises:
            WorkFailed: A reply cannot be had, or processes end too often.
        """
        batches = [
            Batch(places, [requests[place] for place in places], None, decoding)
            for places in groups_of(range(len(requests)), batch_size)
        ]
        for batch, done in self._each(batches):
            said = done.made if done else [Said("", refused=_SET_ASIDE)]
            yield AnsweredBatch(batch.places, cast(Sequence[Said], said), done.seconds if done else 0.0)

    def observations(self, told: Sequence[Told], batch_size: int) -> Iterator[ObservedBatch]:
        """The texts' observations, likewise; None of a text at which three processes ended."""
        batches = [
            Batch(places, [told[place][0] for place in places], [told[place][1] for place in places], None)
            for places in groups_of(range(len(told)), batch_size)
        ]
        for batch, done in self._each(batches):
            yield ObservedBatch(batch.places, cast(Sequence[Observation | None], done.made if done else [None]))

    def close(self) -> None:
        """Ends the processes; the next question starts them again."""
        replicas, self._replicas, self._again = self._replicas, [], 0
        self._workplace.stop([each.worker for each in replicas])

    def _each(self, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Done | None]]:
        """Each batch with what came of it; with None one question that is set aside."""
        todo = deque(map(_Task, batches))
        self._start(len(todo))
        whole = False
        try:
            while todo or any(each.held for each in self._replicas):
                self._hand_out(todo)
                for ready in self._workplace.waiting([each.worker for each in self._replicas]):
                    yield from self._heard(ready, todo)
            whole = True
        finally:
            if not whole:  # what is in work belongs to nobody any more
                self.close()

    def _hand_out(self, todo: deque[_Task]) -> None:
        for full in range(_AT_ONCE):
            for each in self._replicas:
                if todo and each.ready and len(each.held) == full:
                    task = todo.popleft()
                    each.held.append(task)
                    each.worker.send(task.batch)

    def _heard(self, worker: Working, todo: deque[_Task]) -> Iterator[tuple[Batch, Done | None]]:
        replica = next(each for each in self._replicas if each.worker is worker)
        try:
            message = worker.receive()
        except WorkerEnded as problem:
            yield from self._ended(replica, todo, problem)
            return
        if isinstance(message, Ready):
            replica.ready, self._known, self.facts = True, message, message.facts
        elif isinstance(message, Line):
            self._tell(message.text)
        elif isinstance(message, Done):
            yield replica.held.popleft().batch, message

    def _ended(
        self, replica: _Replica, todo: deque[_Task], problem: WorkerEnded
    ) -> Iterator[tuple[Batch, Done | None]]:
        """Starts another process, and puts back what this one had; yields a question that is to be set aside.

        One that ended before it had the model would do so again: the others go on without it.
        """
        self._replicas.remove(replica)
        replica.worker.stop()
        if not replica.ready and not self._replicas:
            raise WorkFailed(f"{self._spec} cannot be loaded in a process of its own: {problem}")
        at_work = replica.held.popleft() if replica.held else None
        todo.extendleft(reversed(replica.held))
        self._again += 1
        if self._again > max(_MOST_STARTED_AGAIN, _EACH_AGAIN * self._workplace.places):
            raise WorkFailed(
                f"{self._again} processes with {self._spec} ended; the last: {problem}{_asked(at_work)}\n"
                "Answers so far are kept. If the system ended them (signal 9), memory is short: fewer replicas "
                "(loading.teacher.replicas, loading.student.replicas), or a smaller batch_size."
            )
        going_on = "another one is started" if replica.ready else "the others go on without it"
        self._tell(f"{self._spec}: {problem}\nits questions are asked elsewhere, and {going_on}")
        if replica.ready:
            self._replicas.append(self._started(replica.number))
        if at_work is None:
            return
        at_work.ended += 1
        if at_work.ended >= _MOST_ENDED and len(at_work.batch.places) == 1:
            self._tell(f"set aside, since {_SET_ASIDE}:{_asked(at_work)}")
            yield at_work.batch, None
        else:
            todo.extendleft(reversed(_smaller(at_work)))

    def _even(self, count: int) -> int:
        """A size of batches that gives each process one."""
        return max(1, -(-count // self._workplace.places))

    def _start(self, batches: int) -> None:
        """As many processes as there are batches, or as there may be; waits for none."""
        there = {each.number for each in self._replicas}
        for number in range(min(batches, self._workplace.places)):
            if number not in there:
                self._replicas.append(self._started(number))

    def _started(self, number: int) -> _Replica:
        return _Replica(self._workplace.start(number), number)

    def _first(self) -> Ready:
        """What the model says of itself."""
        if not self._known:
            self._start(self._batches)
        nothing = deque[_Task]()
        while not self._known:
            for ready in self._workplace.waiting([each.worker for each in self._replicas]):
                for _ in self._heard(ready, nothing):
                    pass
        return self._known


def _smaller(task: _Task) -> list[_Task]:
    """The task as it is, or question by question once two processes ended at it: one of them is to blame."""
    batch = task.batch
    if task.ended < _MOST_ENDED - 1:
        return [task]
    single = (
        Batch([place], [request], batch.texts and [batch.texts[number]], batch.decoding)
        for number, (place, request) in enumerate(zip(batch.places, batch.requests, strict=True))
    )
    return [_Task(each, task.ended) for each in single]


def _asked(task: _Task | None) -> str:
    """What a task asked, in words: its first question."""
    if task is None:
        return ""
    first, count = task.batch.requests[0], len(task.batch.requests)
    about = f" about {first.image}" if first.image else ""
    return f"\nIt was asked{about}: {first.prompt[:_SHOWN]!r}" + (f" and {count - 1} more" if count > 1 else "")
