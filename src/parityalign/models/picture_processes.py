"""Pictures prepared in processes of their own, for models that a GPU runs.

Python's lock is what threads that prepare pictures and the thread that starts a GPU's kernels would wait for: on a
16-core machine a step of decoding took six times as long beside four such threads (docs/log.md). A process gets the
path of a picture and a prompt through a socket and answers with arrays, which are received outside of the lock. It ends
when the other end of its socket is gone, however that came about.
"""

import pickle
import socket
import struct
import subprocess
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, NamedTuple

from parityalign.config import LoadingSettings
from parityalign.core import begin_process
from parityalign.models.encoding import Encoded, Prompter, read_image
from parityalign.models.loading import open_processor

_SIZE = struct.Struct("!Q")
_READY = "ready"


class Channel:
    """Whole objects through a socket; large arrays are not copied on the way."""

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

    def _exactly(self, size: int) -> bytearray:
        whole = bytearray(size)
        left = memoryview(whole)
        while left:
            got = self._end.recv_into(left, len(left), socket.MSG_WAITALL)
            if not got:
                raise EOFError
            left = left[got:]
        return whole


class _Worker(NamedTuple):
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
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()

    def start(self) -> None:
        """Starts them, unless they were started; they take a few seconds to be ready."""
        with self._lock:
            if self._workers:
                return
            with suppress(OSError, ValueError):  # where no process can be started, threads prepare the pictures
                for _ in range(self._count):
                    self._workers.append(_started())
            for worker in self._workers:
                Thread(target=self._greet, args=(worker, self._idle), daemon=True).start()

    def encode(self, path: str, prompt: str) -> Encoded | None:
        """The model's input; None: no process is ready, or the picture has a fault, which the caller will meet too."""
        try:
            worker = self._idle.get_nowait()
        except Empty:
            return None
        try:
            worker.channel.send((path, prompt))
            found: Encoded | None = worker.channel.receive()
        except (OSError, EOFError, pickle.UnpicklingError):  # killed, as when memory runs out
            worker.end()
            return None
        self._idle.put(worker)
        return found

    def close(self) -> None:
        """Ends them; `start` would start new ones."""
        with self._lock:
            workers, self._workers, self._idle = self._workers, [], SimpleQueue()
        for worker in workers:
            worker.end()

    def _greet(self, worker: _Worker, idle: "SimpleQueue[_Worker]") -> None:
        """Waits until a process has opened the processor."""
        with suppress(OSError, EOFError, pickle.UnpicklingError):
            worker.channel.send(self._opened)
            if worker.channel.receive() == _READY:
                idle.put(worker)


def _started() -> _Worker:
    ours, theirs = socket.socketpair()
    with theirs:
        alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return _Worker(begin_process(__name__, theirs.fileno(), alone), Channel(ours))


def main(descriptor: int) -> None:
    """Serves the process that began this one, until it is gone."""
    with suppress(OSError, EOFError):
        _serve(Channel(socket.socket(fileno=descriptor)))


def _serve(channel: Channel) -> None:
    location, loading = channel.receive()
    prompter = Prompter(open_processor(location, loading))
    channel.send(_READY)
    while True:
        channel.send(_encoded(prompter, *channel.receive()))


def _encoded(prompter: Prompter, path: str, prompt: str) -> Encoded | None:
    try:
        return replace(prompter.encode(read_image(path), prompt), levels=None)
    except Exception:  # noqa: BLE001 - whatever it is, the run itself will meet it and say it
        return None
