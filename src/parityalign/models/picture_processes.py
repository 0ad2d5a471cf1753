"""Pictures prepared in processes of their own, for models that a GPU runs.

Python's lock is what threads that prepare pictures and the thread that starts a GPU's kernels would wait for: on a
16-core machine a step of decoding took six times as long beside four such threads (docs/log.md). A process gets the
path of a picture and a prompt through a socket and answers with arrays, which are received outside of the lock. What
it does is in picture_worker.py.
"""

import os
import pickle
import signal
import socket
import struct
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, NamedTuple

import numpy as np
import torch

from parityalign.config import LoadingSettings
from parityalign.core import begin_process, room_for_pictures
from parityalign.models.encoding import Array, Seen
from parityalign.models.tracing import Tried, remember, tried

_WORKER = "parityalign.models.picture_worker"
_SIZE = struct.Struct("!Q")
_PATIENCE = 2.0
"""Seconds for processes to end by themselves."""
_ON_THEIR_WAY = 30.0
"""Seconds for processes to be ready. Threads that prepared pictures meanwhile would be slower, and hold the lock."""
_LOOK_AGAIN = 0.2
"""Seconds after which it is seen that no process comes any more."""
_LARGE = 2**16
"""Bytes from which on memory that a GPU reads by itself is worth its trouble."""


class Channel:
    """Whole objects through a socket; large arrays are not copied on the way, nor on that to a GPU."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def close(self) -> None:
        """Closes it, which the other end and whoever waits here notice."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()

    def send(self, value: object) -> None:
        """Sends an object.

        Raises:
            OSError: The other end is gone.
        """
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(value, 5, buffer_callback=buffers.append)
        parts = [memoryview(content), *(buffer.raw() for buffer in buffers)]
        self._end.sendall(_SIZE.pack(len(parts)) + b"".join(_SIZE.pack(part.nbytes) for part in parts))
        for part in parts:
            self._end.sendall(part)

    def receive(self) -> Any:  # noqa: ANN401 - whatever was sent
        """The next object.

        Raises:
            EOFError: The other end is gone.
            OSError: Likewise.
        """
        (count,) = _SIZE.unpack(self._exactly(_SIZE.size))
        sizes = [_SIZE.unpack(self._exactly(_SIZE.size))[0] for _ in range(count)]
        content, *buffers = [self._exactly(size) for size in sizes]
        return pickle.loads(content, buffers=buffers)

    def _exactly(self, size: int) -> memoryview:
        whole = left = _memory(size)
        while left:
            got = self._end.recv_into(left, len(left), socket.MSG_WAITALL)
            if not got:
                raise EOFError
            left = left[got:]
        return whole


def _memory(size: int) -> memoryview:
    """Bytes to be filled. Clearing them, and copying them to where a GPU reads, would hold Python's lock."""
    if size >= _LARGE and torch.cuda.is_available():
        with suppress(RuntimeError):  # no more memory may be pinned
            pinned: Array = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
            return pinned.data
    return np.empty(size, dtype=np.uint8).data


class Answer(NamedTuple):
    """What a process makes of a picture."""

    seen: Seen | None
    """Without what its 8-bit values stand for; None: the picture has a fault, which the caller will meet too."""
    said: list[str]
    """What whoever runs this has to know."""


class Opening(NamedTuple):
    """What the processes open, and what they may write."""

    location: str
    """The model's folder or hub id."""
    loading: LoadingSettings
    processes: int
    """The number of processes."""
    room: tuple[Path, int, int] | None
    """Of prepared pictures the folder, the most bytes, and how many processes share these; None: none are kept."""
    uncut: bool
    """Whether what a device can cut is not cut."""
    tried: Tried
    """What this process knows of processors."""


class _Forker(NamedTuple):
    """The process that the others come from."""

    process: "subprocess.Popen[bytes]"
    channel: Channel

    def end(self) -> None:
        """Has it end with all that it forked, whose channels are closed."""
        self.channel.close()
        try:
            self.process.wait(_PATIENCE)  # so that it, whose children they are, sees them end
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class PictureProcesses:
    """Processes with one model's processor; every method may be called from any thread."""

    def __init__(self, location: str, loading: LoadingSettings, count: int, *, uncut: bool = False) -> None:
        """Starts none yet.

        Args:
            location: The model's folder or hub id.
            loading: How it is loaded.
            count: The number of processes.
            uncut: Whether pictures that a device can cut are not cut.
        """
        self._room = room_for_pictures()
        kept = (self._room.folder, self._room.most, count * self._room.sharers) if self._room else None
        self._opening = Opening(location, loading, count, kept, uncut, tried())
        self._awaited = 0.0
        self._lock = Lock()
        self._said: set[str] = set()
        self._forker: _Forker | None = None
        self._workers: list[Channel] = []
        self._idle: SimpleQueue[Channel] = SimpleQueue()
        self._alive = 0

    def start(self) -> None:
        """Starts them, unless they were started; they take a few seconds to be ready."""
        with self._lock:
            if self._forker:
                return
            with suppress(OSError, ValueError):  # where no process can be started, threads prepare the pictures
                self._forker, self._workers = _started(self._opening)
            self._alive = len(self._workers)
            self._awaited = time.monotonic() + _ON_THEIR_WAY
            for worker in self._workers:
                Thread(target=self._greet, args=(worker, self._idle), daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether any of them is there, or is on its way."""
        return self._alive > 0

    def see(self, path: str, prompt: str) -> Seen | None:
        """The model's input for a picture, with this prompt or, from where they are kept, with another.

        Waits for processes that are on their way.

        None: no process is ready, or the picture has a fault, which the caller will meet too.
        """
        idle = self._idle  # after `close` there is another
        worker = self._free(idle)
        if worker is None:
            return None
        try:
            worker.send((path, prompt))
            answer: Answer = worker.receive()
        except (OSError, EOFError, pickle.UnpicklingError):  # killed, as when memory runs out
            self._lost(worker)
            return None
        idle.put(worker)
        self._tell(answer.said)
        return answer.seen

    def _free(self, idle: "SimpleQueue[Channel]") -> Channel | None:
        """A process that is ready and not at work."""
        while True:
            waits = self._alive and idle is self._idle and time.monotonic() < self._awaited
            try:
                return idle.get(timeout=_LOOK_AGAIN if waits else 0)
            except Empty:
                if not waits:
                    return None

    def _tell(self, said: list[str]) -> None:
        """Tells whoever runs this, once, whichever process it came from."""
        with self._lock:
            new = [each for each in said if each not in self._said]
            self._said.update(new)
        for each in new:
            if self._room:
                self._room.say(each)

    def close(self) -> None:
        """Ends them; `start` would start new ones."""
        with self._lock:
            workers, self._workers, self._idle = self._workers, [], SimpleQueue()
            forker, self._forker, self._alive = self._forker, None, 0
        for worker in workers:
            worker.close()
        if forker:
            forker.end()

    def _greet(self, worker: Channel, idle: "SimpleQueue[Channel]") -> None:
        """Waits until a process is there, and takes over what it knows of the processor."""
        try:
            found: Tried = worker.receive()
        except (OSError, EOFError, pickle.UnpicklingError):
            self._lost(worker)
        else:
            remember(found)
            idle.put(worker)

    def _lost(self, worker: Channel) -> None:
        """Goes on without a process."""
        worker.close()
        with self._lock:
            if worker not in self._workers:  # they were closed
                return
            self._alive -= 1
        if not self._alive:
            self._tell(["no process prepares pictures any more; threads do, which takes longer"])


def _started(opening: Opening) -> tuple[_Forker, list[Channel]]:
    """The first process, and what leads to each of those that it will fork."""
    # Whoever has used threads may not fork: none of the libraries begins any.
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with ExitStack() as on_failure, ExitStack() as theirs:

        def pair() -> tuple[socket.socket, socket.socket]:
            mine, other = socket.socketpair()
            on_failure.enter_context(mine)
            return mine, theirs.enter_context(other)

        (control, its_control), *pairs = [pair() for _ in range(1 + opening.processes)]
        forker = _Forker(begin_process(_WORKER, its_control.fileno(), alone), Channel(control))
        on_failure.callback(forker.end)
        forker.channel.send(opening)
        for _, end in pairs:
            socket.send_fds(control, [b" "], [end.fileno()])
        on_failure.pop_all()
        return forker, [Channel(mine) for mine, _ in pairs]
