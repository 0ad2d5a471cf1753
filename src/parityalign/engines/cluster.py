"""Replicas on the nodes of a Ray cluster, as this process sees them.

Ray is joined by a process of its own (`on_ray.py`), which talks with this one as any worker does: Ray ends its process
when it loses a cluster, and writes to its terminal what it likes. So a lost cluster is a process that ended.

Not Ray Data: its actors last as long as one data set is mapped, and a stage asks in parts, with the model in memory
throughout; a question that kills its process is asked again without end there, and nothing tells which one it was
(tried: docs/log.md). What is handed out, repeated and set aside is decided in `replicas.py`, as on one machine.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from tempfile import TemporaryDirectory

from parityalign.config import RaySettings
from parityalign.core import UserError, Work, Worker, WorkerEnded, WorkFailed, waiting
from parityalign.engines.on_ray import (
    Arrived,
    Ended,
    Failure,
    From,
    Joined,
    Send,
    Start,
    Stop,
    Stopped,
    join,
    no_cluster,
)

_MOST_LOST = 3
"""Times that a cluster may be lost before the work stops."""
_PATIENCE = 20.0
"""Seconds in which replicas that are stopped have to say so."""
_MOST_LATE = 60.0
"""Seconds by which a node's clock may differ before that is told."""
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Nothing is told to Ray's makers."""


class Cluster:
    """A Ray cluster, joined when the first replica is wanted and left when it is closed."""

    def __init__(self, settings: RaySettings, tell: Callable[[str], None]) -> None:
        """Joins nothing yet.

        Args:
            settings: Which cluster, and what a replica takes of it.
            tell: Told of nodes that differ, and of what is waited for.
        """
        self._settings, self._tell = settings, tell
        self._client: Worker | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._lost = 0
        self._numbers = count()
        self._replicas: dict[int, OnNode] = {}
        self._told: set[str] = set()
        self._joined: Joined | None = None

    def joined(self) -> Joined:
        """What there is, once it is joined.

        Raises:
            UserError: Nobody answers, no node has room for a replica, or Ray is not installed or another version.
        """
        if self._joined is None or self._client is None:
            self._folder = TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
            self._client = Worker(partial(join, self._settings, self._folder.name), _ENVIRONMENT)
            try:
                self._joined = self._answer()
            except BaseException:
                self.close()
                raise
        return self._joined

    def workplace(self, work: Work, wanted: int | None) -> "Nodes":
        """Where replicas do some work: as many as are wanted, or as the nodes have room for.

        Raises:
            UserError: As for `joined`.
        """
        joined = self.joined()
        if not joined.room:
            raise UserError(
                f"no node of the Ray cluster has room for a replica of {joined.replica}; it has {joined.nodes}. "
                "Set ray.cpus and ray.gpus to what a node has"
            )
        if wanted and wanted > joined.room:
            self._tell(f"the Ray cluster has room for {joined.room} of {wanted} replicas; the others wait for it")
        return Nodes(self, work, wanted or joined.room)

    def close(self) -> None:
        """Leaves the cluster; one that was started for the run ends."""
        client, self._client, self._joined = self._client, None, None
        if client:
            client.stop()
        if self._folder:
            self._folder.cleanup()

    def start(self, work: Work) -> "OnNode":
        """Wants a replica on some node; it arrives when one has room."""
        self.joined()
        replica = OnNode(self, next(self._numbers))
        self._replicas[replica.number] = replica
        self.send(Start(replica.number, work))
        return replica

    def send(self, message: object) -> None:
        """Sends the client a message."""
        if self._client:
            self._client.send(message)

    def wait_for(self, replicas: Sequence["OnNode"]) -> list["OnNode"]:
        """Those that have a message or are gone.

        Raises:
            WorkFailed: None of them has arrived on a node, for as long as the settings allow.
        """
        began = time.monotonic()
        while not (found := [each for each in replicas if each.inbox]):
            left = began + self._settings.room_timeout - time.monotonic()
            if not any(each.arrived for each in replicas) and left <= 0:
                raise WorkFailed(
                    f"no node of the Ray cluster had room for a replica in {self._settings.room_timeout:g} s; each "
                    f"takes {self.joined().replica} (ray.cpus, ray.gpus). Answers so far are kept: run the same "
                    "command when there is room, or set ray.room_timeout"
                )
            self.listen(max(0.05, left))
        return found

    def stop(self, replicas: Sequence["OnNode"]) -> None:
        """Ends replicas at once; returns when their memory is free, or they do not answer."""
        for each in replicas:
            if not each.over:
                self.send(Stop(each.number))
        end = time.monotonic() + _PATIENCE
        while self._client and not all(each.over for each in replicas) and time.monotonic() < end:
            self.listen(end - time.monotonic())
        for each in replicas:
            self._replicas.pop(each.number, None)

    def listen(self, timeout: float) -> None:
        """Takes the client's next message, if there is one in so many seconds."""
        if self._client is None or not waiting([self._client], timeout):
            return
        try:
            message = self._client.receive()
        except WorkerEnded as problem:
            self._lose(str(problem))
            return
        replica = self._replicas.get(message.number) if isinstance(message, From | Stopped) else None
        if replica and isinstance(message, Stopped):
            replica.over = True
        elif replica and isinstance(message, From) and isinstance(message.content, Arrived):
            replica.arrived = True
            self._compare(message.content)
        elif replica and isinstance(message, From):
            replica.inbox.append(message.content)

    def _answer(self) -> Joined:
        """What the client says first."""
        address, client = self._settings.address, self._client
        if client is None or not waiting([client], self._settings.timeout):
            raise no_cluster(address, f"no answer in {self._settings.timeout:g} s (ray.timeout)")
        try:
            message = client.receive()
        except WorkerEnded as problem:
            raise no_cluster(address, str(problem)) from problem
        if not isinstance(message, Joined):
            raise TypeError(f"{message!r} is not what a client says first")
        return message

    def _lose(self, words: str) -> None:
        """Every replica is gone; the next one that is started joins the cluster again."""
        self.close()
        self._lost += 1
        replicas, self._replicas = self._replicas, {}
        for each in replicas.values():
            each.over = True
            each.inbox.append(Ended(f"the Ray cluster is lost: {words}"))
        if self._lost >= _MOST_LOST:
            raise WorkFailed(
                f"the Ray cluster was lost {self._lost} times; the last time: {words}\n"
                "Answers so far are kept: run the same command when it works again."
            )

    def _compare(self, node: Arrived) -> None:
        """Tells once in what a node differs from this machine.

        Raises:
            WorkFailed: It has another version of this package.
        """
        here = self.joined()
        if (theirs := node.versions["parityalign"]) != (ours := here.versions["parityalign"]):
            raise WorkFailed(
                f"the node {node.where} has parityalign {theirs}, and this machine {ours}. "
                "Install the same on all nodes"
            )
        found = [
            f"{name} {there} (here {here.versions[name]})"
            for name, there in node.versions.items()
            if there != here.versions[name]
        ]
        differs = f"the node {node.where} has {', '.join(found)}: its answers may differ in a word" if found else ""
        late = node.clock - time.time()
        clock = f"the clock of the node {node.where} is {late:+.0f} s off" if abs(late) > _MOST_LATE else ""
        for line in filter(None, (differs, clock)):
            if line not in self._told:
                self._told.add(line)
                self._tell(line)


class OnNode:
    """A replica on some node of a cluster; a `core.Working`.

    Attributes:
        number: Its own, among all that are ever started.
        inbox: What it has sent.
        arrived: Whether a node had room for it.
        over: Whether it has ended.
    """

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.number, self.inbox = number, deque[object]()
        self.arrived = self.over = False
        self._cluster = cluster

    def send(self, message: object) -> None:
        """Sends it a message."""
        self._cluster.send(Send(self.number, message))

    def receive(self) -> object:
        """Its next message; waits for it."""
        self._cluster.wait_for([self])
        message = self.inbox.popleft()
        if isinstance(message, Ended):
            raise WorkerEnded(message.words)
        if isinstance(message, Failure):
            raise message.problem
        return message

    def stop(self) -> None:
        """Ends it."""
        self._cluster.stop([self])


class Nodes:
    """A `Workplace`: the nodes of a cluster."""

    def __init__(self, cluster: Cluster, work: Work, places: int) -> None:
        self._cluster, self._work, self._places = cluster, work, places

    @property
    def places(self) -> int:
        """How many replicas there may be."""
        return self._places

    def start(self, place: int) -> OnNode:
        """Wants a replica; which node it is on is Ray's to decide, whatever the place."""
        return self._cluster.start(self._work)

    def waiting(self, workers: Sequence[OnNode]) -> list[OnNode]:
        """Those that have a message or are gone."""
        return self._cluster.wait_for(workers)

    def stop(self, workers: Sequence[OnNode]) -> None:
        """Ends several; one that still waits for room is waited for as long as all of them."""
        self._cluster.stop(workers)
