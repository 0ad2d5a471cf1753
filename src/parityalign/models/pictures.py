"""Pictures as one model takes them, prepared in threads while the model works on earlier ones.

A picture is decoded, resized and cut once for all its prompts: only the prompt's tokens differ in a processor's output.
What a processor would enlarge is decoded only, and resized and cut where the model is, if that is a GPU (cutting.py).
Where a run has room for prepared pictures, once for all stages. On a CPU threads are enough: Pillow and NumPy work
outside of Python's lock. Beside a GPU each thread has a process (see picture_processes.py).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import TypeVar
from weakref import WeakValueDictionary

from PIL.Image import Image

from parityalign.config import LoadingSettings
from parityalign.core import EMBEDDED_MODELS, room_for_pictures, usable_cores
from parityalign.data import image_id, read_bytes
from parityalign.models.cutting import Uncut
from parityalign.models.device import this_device
from parityalign.models.eight_bits import PIXELS
from parityalign.models.encoding import Encoded, Prompter, Seen, cannot_be_read, decoded, read_image
from parityalign.models.picture_processes import PictureProcesses
from parityalign.models.picture_store import PictureStore

T = TypeVar("T")

_MOST_WORKERS = 8
_MOST_PROCESSES = 14
_PROMPTS_KEPT = 4096
_UNLIKE = ("a", "9")
"""Two prompts without a common prefix: the common prefix of their chats precedes every prompt."""
_STORED = _UNLIKE[0]
"""The prompt of every picture in the store, and of those that are not cut."""


class Pictures:
    """Prepares pictures for one model; to be called from one thread.

    Attributes:
        workers: The number of threads.
    """

    def __init__(
        self,
        prompter: Prompter,
        workers: int | None = None,
        *,
        processes: PictureProcesses | None = None,
        uncut: bool | None = None,
    ) -> None:
        """Starts no thread yet.

        Args:
            prompter: The model's.
            workers: Threads; 0: each picture is prepared when it is begun. None: as many as this machine is good for.
            processes: What threads hand their pictures to. None: they prepare them.
            uncut: Whether the model's device cuts pictures that become larger. None: where it is a GPU.
        """
        self.workers = usual_workers() if workers is None else workers
        self._prompter = prompter
        self._processes = processes
        self._leaves_uncut = this_device() == "cuda" if uncut is None else uncut
        self._tokens = lru_cache(_PROMPTS_KEPT)(prompter.tokens)
        self._head = _shared(*map(prompter.tokens, _UNLIKE))
        self._pool = self._threads()
        self._room = room_for_pictures()
        self._opening = Lock()
        self._begun: WeakValueDictionary[str, Future[Seen]] = WeakValueDictionary()

    def close(self) -> None:
        """Gives up what has not begun to be prepared: Python would wait for all of it before it ends."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = self._threads()
        if self._processes:
            self._processes.close()
        self._begun.clear()

    def _threads(self) -> ThreadPoolExecutor | None:
        return ThreadPoolExecutor(self.workers, thread_name_prefix="pictures") if self.workers else None

    def begin(self, path: str, prompt: str) -> "Future[Seen]":
        """Begins to prepare a picture; while somebody holds the result, the same picture is not prepared again."""
        begun = self._begun.get(path)
        if begun is None:
            begun = self.submit(lambda: self._seen(path, prompt))
            self._begun[path] = begun
        return begun

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Begins other work on a picture."""
        if self._pool:
            return self._pool.submit(work)
        done: Future[T] = Future()
        try:
            done.set_result(work())
        except Exception as problem:  # noqa: BLE001 - raised where the result is asked for, as threads do
            done.set_exception(problem)
        return done

    def row(self, path: str, seen: Seen, prompt: str) -> Encoded:
        """The model's input for a prepared picture with this prompt."""
        return self._with(prompt, seen) or self._prompter.encode(read_image(path), prompt)

    def _with(self, prompt: str, seen: Seen) -> Encoded | None:
        if prompt == seen.prompt:
            return seen.encoded
        return with_other_prompt(seen.encoded, self._tokens(seen.prompt), self._tokens(prompt), head=self._head)

    def _seen(self, path: str, prompt: str) -> Seen:
        """A picture, by a process if one is free."""
        found = self._processes.see(path, prompt) if self._processes else None
        if found is None:
            return self._seen_here(path, prompt)
        known = self._prompter.eight_bits
        return found._replace(encoded=replace(found.encoded, levels=known and known.levels))

    def _seen_here(self, path: str, prompt: str) -> Seen:
        store = self._store
        if store is None:
            return self.prepare(read_image(path), prompt)
        with cannot_be_read(path):
            content = read_bytes(Path(path))
        name = image_id(content)
        found = store.find(name)
        if found:
            return Seen(_STORED, found)
        seen = self.prepare(decoded(content, path), prompt)
        kept_by_others = self._processes and self._processes.alive  # they have all the room between them
        worth_it = not isinstance(seen.encoded.image[PIXELS], Uncut)  # which is decoded as fast
        stored = self._with(_STORED, seen) if worth_it and not kept_by_others else None
        if stored:
            store.keep(name, stored)
        return seen

    def prepare(self, picture: Image, prompt: str = _STORED) -> Seen:
        """A picture, uncut where that is of use."""
        uncut = self._prompter.uncut(picture, _STORED) if self._leaves_uncut else None
        if uncut and self._with(prompt, Seen(_STORED, uncut)):
            return Seen(_STORED, uncut)
        return Seen(prompt, self._prompter.encode(picture, prompt))

    @property
    def _store(self) -> PictureStore | None:
        with self._opening:  # all threads want to know at once
            return self._opened_store

    @cached_property
    def _opened_store(self) -> PictureStore | None:
        """Where pictures are kept; None: nowhere, or what the processor makes of them cannot be."""
        known = self._prompter.eight_bits
        if self._room is None or known is None:
            return None
        try:
            return PictureStore(self._room, self._prompter.processor, known.levels, self._tokens(_STORED))
        except OSError:  # such as a folder that may not be listed
            return None

    def without(self, prompt: str) -> Encoded:
        """The model's input for a question without a picture."""
        return self._prompter.encode_text(prompt)


def processes_for(location: str, loading: LoadingSettings) -> PictureProcesses | None:
    """Begins to start the processes that prepare the pictures of a model, as many as it has threads.

    None where threads are as good: on a CPU, whose cores the model needs, and for bundled models' small pictures.
    """
    count = usual_workers() if loading.workers is None else loading.workers
    if not count or this_device() != "cuda" or Path(location).parent == EMBEDDED_MODELS:
        return None
    made = PictureProcesses(location, loading, count, uncut=True)
    made.start()
    return made


def image_bytes(row: Encoded) -> int:
    """Bytes of a row's image in memory, uncut if it is."""
    return sum(array.nbytes for array in row.image.values())


def with_other_prompt(encoded: Encoded, before: Sequence[int], now: Sequence[int], *, head: int) -> Encoded | None:
    """The same image with another prompt, without running the processor again.

    Args:
        encoded: The image with a prompt.
        before: The tokens of that prompt's chat, with a single placeholder for the image.
        now: The tokens of the other prompt's chat.
        head: How many tokens precede every prompt.

    Returns:
        None if the processor did more than insert the image's tokens before the prompt.
    """
    whole = encoded.tokens
    start = _shared(whole, before)
    end = len(before) - _shared(whole[start:][::-1], before[start:][::-1])
    inserted = len(whole) - len(before) + end - start
    rest = {key: values for key, values in encoded.per_token.items() if key != "input_ids"}
    if end > head or any(any(values[start + inserted :]) for values in rest.values()):
        return None
    after = len(now) - end
    per_token = {key: values[: start + inserted] + [0] * after for key, values in rest.items()}
    tokens = whole[: start + inserted] + list(now[end:])
    return replace(encoded, per_token={"input_ids": tokens, **per_token})


def usual_workers(processes: int = 1) -> int:
    """Threads for pictures in one of several processes that share this machine."""
    cores = usable_cores()
    if this_device() == "cuda":
        return max(1, min(_MOST_PROCESSES, (cores - 2) // processes))
    return max(1, min(_MOST_WORKERS, cores // 2 // processes))  # the model needs the cores too


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix of two token sequences."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
