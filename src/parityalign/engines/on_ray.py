"""The other side of `cluster.py`: the process that joins a Ray cluster, and the actors that keep replicas on its nodes.

An actor keeps a process that is the replica, the same as one beside a run on its own machine, and hands on what is sent
to it and what it sends: a model that kills its process does not take the actor's last words with it.
"""

import os
import platform
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock, Thread
from typing import Any, NamedTuple

import psutil

from parityalign.config import RaySettings
from parityalign.core import (
    Post,
    Work,
    Worker,
    WorkerEnded,
    WorkFailed,
    missing_package,
    printable,
    usable_cores,
)
from parityalign.engines.replica import Batch, Done

_PACKAGES = ("parityalign", "torch", "transformers", "pillow")
"""On which answers hang."""
_STORE = 2**28
"""Bytes that a cluster of this machine alone has for what is under way: prompts and replies, as pictures go by path."""
_READERS = 16
"""Pictures that are read at once."""
_LINES, _LINE = 6, 300
"""Lines of Ray's words, and characters of each, that are shown."""
_TO_END, _TO_CONNECT = 10.0, 10.0
"""Seconds in which a replica has to end, and in which the head of a cluster has to take a connection."""
_LOOKS = 0.5
"""Seconds between two looks at the cluster's own processes."""


class Start(NamedTuple):
    """Wanted: a replica that does some work."""

    number: int
    work: Work


class Send(NamedTuple):
    """A message for a replica."""

    number: int
    content: object


class Stop(NamedTuple):
    """A replica is not needed any more."""

    number: int


class Joined(NamedTuple):
    """The cluster is joined."""

    room: int
    """Replicas that its nodes hold, if nothing else is there."""
    nodes: str
    """What there is, in words."""
    replica: str
    """What a replica takes, in words."""
    versions: Mapping[str, str]
    """Of this machine."""


class From(NamedTuple):
    """A message of a replica, or of who keeps it."""

    number: int
    content: object


class Stopped(NamedTuple):
    """A replica is gone, and its memory free."""

    number: int


class Arrived(NamedTuple):
    """A node has room for a replica."""

    where: str
    versions: Mapping[str, str]
    clock: float
    """What time it is there, in seconds of `time.time`."""


class Ended(NamedTuple):
    """A replica is gone without a word of its own."""

    words: str


class Failure(NamedTuple):
    """A replica's work ended with this."""

    problem: Exception


def join(settings: RaySettings, folder: str, post: Post) -> None:
    """Joins a cluster, or starts one, and keeps replicas there; the work of a `core.Worker`.

    Args:
        settings: Which cluster, and what a replica takes.
        folder: Where a cluster of this machine alone has its sockets and logs.
        post: To the process that wants the replicas.

    Raises:
        UserError: There is no such cluster, or no Ray.
    """
    if settings.address:
        _refuse_closed_port(settings.address)
    try:
        import ray  # noqa: PLC0415
    except ImportError as problem:
        raise missing_package("asking on a cluster (ray)", "ray", "'parityalign[ray]'") from problem
    client = _Client(ray, settings, post)
    post.send(client.join(folder))
    while True:
        for message in post.received(wait=True):
            if isinstance(message, Start):
                client.start(message)
            elif isinstance(message, Send):
                client.send(message)
            elif isinstance(message, Stop):
                client.stop(message)


class _Client:
    """This process as one of a cluster's."""

    def __init__(self, ray: Any, settings: RaySettings, post: Post) -> None:  # noqa: ANN401 - a module
        self._ray, self._settings = ray, settings
        self._post, self._sending = post, Lock()
        self._actors: dict[int, Any] = {}
        self._last: dict[int, Any] = {}
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="pictures")
        self._takes: dict[str, float] = {}

    def join(self, folder: str) -> Joined:
        """Joins the cluster, or starts one."""
        ray, settings = self._ray, self._settings
        own: dict[str, Any] = {}
        if settings.address is None:
            own = {"num_cpus": usable_cores(), "object_store_memory": _STORE, "_temp_dir": folder}
            own["include_dashboard"] = False
        try:
            ray.init(settings.address or "local", log_to_driver=False, configure_logging=False, **own)
        except Exception as problem:  # noqa: BLE001 - Ray raises this very class where it does not start in time
            raise no_cluster(settings.address, _words(problem)) from problem
        if settings.address is None:
            Thread(target=_end_with_cluster, daemon=True).start()
        nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
        gpus = settings.gpus if settings.gpus is not None else float(any(each.get("GPU") for each in nodes))
        self._takes = {"num_cpus": settings.cpus, "num_gpus": gpus}
        needs = {name: number for name, number in (("CPU", settings.cpus), ("GPU", gpus)) if number}
        room = sum(min(int(each.get(name, 0) / number) for name, number in needs.items()) for each in nodes)
        total = {name: sum(each.get(name, 0) for each in nodes) for name in ("CPU", "GPU")}
        there = f"{len(nodes)} node{'s' * (len(nodes) != 1)} with {_amounts(total)}"
        return Joined(room, there, _amounts(needs), {"ray": ray.__version__, **_versions()})

    def start(self, wanted: Start) -> None:
        """Has an actor keep a replica, when a node has room for one."""
        kept = self._ray.remote(Keeper).options(max_concurrency=2, max_restarts=0, **self._takes)
        actor = kept.remote(wanted.work)
        self._actors[wanted.number] = actor
        Thread(target=self._listen, args=(wanted.number, actor), daemon=True).start()

    def send(self, wanted: Send) -> None:
        """Hands a message to an actor, with the pictures that it is about where the node does not have them."""
        actor = self._actors.get(wanted.number)
        if actor:
            try:
                pictures = self._pictures(wanted.content)
            except OSError as problem:
                words = f"cannot read the image {problem.filename}: {problem.strerror}"
                self._tell(From(wanted.number, Failure(WorkFailed(words))))
                return
            # Actors with several threads take calls in any order: each of these waits for the one before it.
            last = self._last.get(wanted.number)
            self._last[wanted.number] = actor.put.remote(wanted.content, pictures, last)

    def stop(self, wanted: Stop) -> None:
        """Ends an actor with its replica."""
        actor = self._actors.pop(wanted.number, None)
        self._last.pop(wanted.number, None)
        if actor:
            Thread(target=self._end, args=(wanted.number, actor), daemon=True).start()
        else:
            self._tell(Stopped(wanted.number))

    def _end(self, number: int, actor: Any) -> None:  # noqa: ANN401 - Ray's
        # It is gone, or still waits for a node, or is stuck.
        with suppress(self._ray.exceptions.RayError):
            self._ray.get(actor.end.remote(), timeout=_TO_END)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(actor)
        self._tell(Stopped(number))

    def _listen(self, number: int, actor: Any) -> None:  # noqa: ANN401 - Ray's
        """Hands on what an actor sends, until it is gone."""
        try:
            for each in actor.messages.options(num_returns="streaming").remote():
                message = self._ray.get(each)
                self._tell(From(number, message))
        except self._ray.exceptions.RayError as problem:
            self._tell(From(number, Ended(f"an actor of the cluster ended: {_words(problem)}")))

    def _pictures(self, message: object) -> dict[str, bytes]:
        """Those that a message is about, by path, if nodes cannot open them."""
        if self._settings.files_are_shared or not isinstance(message, Batch):
            return {}
        paths = sorted({request.image for request in message.requests if request.image})
        return dict(zip(paths, self._readers.map(lambda path: Path(path).read_bytes(), paths), strict=True))

    def _tell(self, message: object) -> None:
        with self._sending:
            self._post.send(message)


class Keeper:
    """An actor: the keeper of a replica's process on its node."""

    def __init__(self, work: Work) -> None:
        """Starts the process."""
        self._folder = TemporaryDirectory(prefix="parityalign-")
        self._numbers, self._sent = count(), deque[Path]()
        self._worker = Worker(work, {})
        self._fault: Failure | None = None

    def put(self, message: object, pictures: Mapping[str, bytes], _before: object) -> None:
        """Sends the process a message.

        Args:
            message: For the process.
            pictures: By the paths that the message has for them, those that are to be opened here.
            _before: What this had to wait for.
        """
        if isinstance(message, Batch):
            folder = Path(self._folder.name) / str(next(self._numbers))
            try:
                message = _with_files(message, pictures, folder)
            except OSError as problem:
                self._give_up(problem)
                return
            self._sent.append(folder)
        self._worker.send(message)

    def messages(self) -> Iterator[object]:
        """What the process sends, until it ends."""
        yield Arrived(f"{platform.node()} ({self._worker.pid})", _versions(), time.time())
        while True:
            try:
                message = self._worker.receive()
            except WorkerEnded as problem:
                yield self._fault or Ended(f"on the node {platform.node()}: {problem}")
                return
            except Exception as problem:  # noqa: BLE001 - raised again by whoever wanted the work
                yield Failure(problem)
                return
            if isinstance(message, Done):
                shutil.rmtree(self._sent.popleft(), ignore_errors=True)
            yield message

    def _give_up(self, problem: OSError) -> None:
        """Has `messages` end with what keeps pictures from being written here; nobody takes what `put` raises."""
        if self._fault:
            return
        self._fault = Failure(
            WorkFailed(
                f"the node {platform.node()} cannot write pictures to {self._folder.name}: "
                f"{problem.strerror or problem}\nAnswers so far are kept. Make room there and run the same command, or "
                "let nodes see pictures under the paths that this machine has for them (ray.shared_files: true)"
            )
        )
        with suppress(ProcessLookupError):
            os.killpg(self._worker.pid, signal.SIGKILL)  # `messages` takes what it has said until now

    def end(self) -> None:
        """Ends the process; returns when its memory is free."""
        self._worker.stop()
        self._folder.cleanup()


def _with_files(batch: Batch, pictures: Mapping[str, bytes], folder: Path) -> Batch:
    """The batch about files here, which have the pictures that were sent."""
    if not pictures:
        return batch
    folder.mkdir()
    here = {}
    for number, (path, content) in enumerate(pictures.items()):
        here[path] = folder / f"{number}{Path(path).suffix}"
        here[path].write_bytes(content)
    requests = [replace(each, image=str(here[each.image])) if each.image in here else each for each in batch.requests]
    return batch._replace(requests=requests)


def _end_with_cluster() -> None:
    """Ends this process when the cluster that it has started ends: Ray itself would wait a minute for it to return."""
    own = [each for each in psutil.Process().children() if each.name() in ("raylet", "gcs_server")]
    while all(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in own):
        time.sleep(_LOOKS)
    os.write(2, b"processes of the cluster on this machine ended\n")
    os.killpg(0, signal.SIGKILL)


def _refuse_closed_port(address: str) -> None:
    """Refuses an address at which nobody answers, before Ray spends minutes on it.

    Raises:
        WorkFailed: Nobody does.
    """
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _TO_CONNECT).close()
        except OSError as problem:
            raise no_cluster(address, problem.strerror or str(problem)) from problem


def no_cluster(address: str | None, why: str) -> WorkFailed:
    """The error for a cluster that cannot be had."""
    if address is None:
        return WorkFailed(f"Ray does not start on this machine: {why}\nLeave out the section ray to work without")
    return WorkFailed(
        f"there is no Ray cluster that this machine is a node of at {address}: {why}\nAnswers so far are kept. "
        "`ray start --head` starts one, `ray start --address HOST:PORT` makes a machine a node of it, and `ray status` "
        "on its head says whether it runs; or correct ray.address"
    )


def _versions() -> dict[str, str]:
    """Of what answers hang on, on this node."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{number:g} {name}{'s' * (number != 1)}" for name, number in resources.items())


def _words(problem: BaseException) -> str:
    """The first lines of what Ray says."""
    lines = [printable(line.strip())[:_LINE] for line in str(problem).splitlines() if line.strip()]
    return "\n  | ".join(lines[:_LINES])
