"""Pictures prepared in processes of their own, for models that a GPU runs.

Python's lock is what threads that prepare pictures and the thread that starts a GPU's kernels would wait for: on a
16-core machine a step of decoding took six times as long beside four such threads (docs/log.md). A process gets the
path of a picture and a prompt through a socket and answers with arrays, which are received outside of the lock. It ends
when the other end of its socket is gone, however that came about.

One process opens the processor and forks the others: fourteen that each import torch keep such a machine busy for a
quarter of a minute.
"""

import gc
import os
import pickle
import socket
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, NamedTuple

import torch

from parityalign.config import LoadingSettings
from parityalign.core import begin_process
from parityalign.models.encoding import Array, Encoded, Prompter, read_image
from parityalign.models.loading import open_processor

_SIZE = struct.Struct("!Q")
_READY = "ready"
_LARGE = 2**16
"""Bytes from which on memory that a GPU reads by itself is worth its trouble."""


class Channel:
    """Whole objects through a socket; large arrays are not copied on the way, nor on that to a GPU."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def close(self) -> None:
        """Closes it, which the other end notices."""
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
    pinned = size >= _LARGE and torch.cuda.is_available()
    array: Array = torch.empty(size, dtype=torch.uint8, pin_memory=pinned).numpy()
    return array.data


class _Forker(NamedTuple):
    """The process that the others come from."""

    process: "subprocess.Popen[bytes]"
    channel: Channel

    def end(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()


class PictureProcesses:
    """Processes with one model's processor; every method may be called from any thread."""

    def __init__(self, location: str, loading: LoadingSettings, count: int) -> None:
        """Starts none yet.

        Args:
            location: The model's folder or hub id.
            loading: How it is loaded.
            count: The number of processes.
        """
        self._opened = location, loading
        self._count = count
        self._lock = Lock()
        self._forker: _Forker | None = None
        self._workers: list[Channel] = []
        self._idle: SimpleQueue[Channel] = SimpleQueue()

    def start(self) -> None:
        """Starts them, unless they were started; they take a few seconds to be ready."""
        with self._lock:
            if self._forker:
                return
            with suppress(OSError, ValueError):  # where no process can be started, threads prepare the pictures
                self._forker, self._workers = _started(self._opened, self._count)
            for worker in self._workers:
                Thread(target=_greet, args=(worker, self._idle), daemon=True).start()

    def encode(self, path: str, prompt: str) -> Encoded | None:
        """The model's input; None: no process is ready, or the picture has a fault, which the caller will meet too."""
        try:
            worker = self._idle.get_nowait()
        except Empty:
            return None
        try:
            worker.send((path, prompt))
            found: Encoded | None = worker.receive()
        except (OSError, EOFError, pickle.UnpicklingError):  # killed, as when memory runs out
            worker.close()
            return None
        self._idle.put(worker)
        return found

    def close(self) -> None:
        """Ends them; `start` would start new ones."""
        with self._lock:
            workers, self._workers, self._idle = self._workers, [], SimpleQueue()
            forker, self._forker = self._forker, None
        for worker in workers:
            worker.close()
        if forker:
            forker.end()


def _greet(worker: Channel, idle: "SimpleQueue[Channel]") -> None:
    """Waits until a process is there."""
    with suppress(OSError, EOFError, pickle.UnpicklingError):
        if worker.receive() == _READY:
            idle.put(worker)


def _started(opened: tuple[str, LoadingSettings], count: int) -> tuple[_Forker, list[Channel]]:
    """The first process, and what leads to each of those that it will fork."""
    ours, theirs = socket.socketpair()
    pairs = [socket.socketpair() for _ in range(count)]
    # Whoever has used threads may not fork: none of the libraries begins any.
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        forker = _Forker(begin_process(__name__, theirs.fileno(), alone), Channel(ours))
        forker.channel.send((*opened, count))
        for _, end in pairs:
            socket.send_fds(ours, [b" "], [end.fileno()])
    finally:
        theirs.close()
        for _, end in pairs:
            end.close()
    return forker, [Channel(end) for end, _ in pairs]


def main(descriptor: int) -> None:
    """Forks the processes that serve the one that began this one, and waits until they have ended."""
    with suppress(OSError, EOFError), socket.socket(fileno=descriptor) as control:
        location, loading, count = Channel(control).receive()
        ends = [socket.socket(fileno=socket.recv_fds(control, 1, 1)[1][0]) for _ in range(count)]
        prompter = Prompter(open_processor(location, loading))
        _ = prompter.eight_bits  # tried once for all
        _fork(prompter, ends)


def _fork(prompter: Prompter, ends: Sequence[socket.socket]) -> None:
    gc.freeze()  # what all of them have stays shared
    for place, end in enumerate(ends):
        if not os.fork():
            for other in ends[place + 1 :]:  # else they would not be told that the other end is gone
                other.close()
            with suppress(OSError, EOFError):
                _serve(Channel(end), prompter)
            return
        end.close()
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _serve(channel: Channel, prompter: Prompter) -> None:
    channel.send(_READY)
    while True:
        channel.send(_encoded(prompter, *channel.receive()))


def _encoded(prompter: Prompter, path: str, prompt: str) -> Encoded | None:
    try:
        return replace(prompter.encode(read_image(path), prompt), levels=None)
    except Exception:  # noqa: BLE001 - whatever it is, the run itself will meet it and say it
        return None
