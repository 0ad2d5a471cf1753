"""Prepares a model's inputs in threads, while the model works on the previous ones.

An image is opened and processed once for all its prompts: only the prompt's tokens differ in the processor's output.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from parityalign.core import Request, usable_cores
from parityalign.models.encoding import Encoded, Prompter, read_image

_MOST_WORKERS = 8
_PROMPTS_KEPT = 4096
_UNLIKE = ("a", "9")
"""Two prompts without a common prefix: the common prefix of their chats precedes every prompt."""
_BYTES_AHEAD = 2**29
"""Bytes of images that are prepared ahead."""


class _Seen(NamedTuple):
    """An image encoded with its first prompt."""

    prompt: str
    encoded: Encoded


class Reader:
    """Turns requests into a model's input, some of them ahead of time."""

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter
        self._tokens = lru_cache(_PROMPTS_KEPT)(prompter.tokens)
        self._head = _shared(*map(prompter.tokens, _UNLIKE))
        self._threads = max(1, min(_MOST_WORKERS, usable_cores() // 2))  # on a CPU the model needs the cores too
        self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="reading")
        self._images: dict[str, Future[_Seen]] = {}
        self._expected: list[Request] = []
        self._largest = 0

    def expect(self, requests: Sequence[Request]) -> None:
        """Announces the requests after the next `read`; preparing them begins when that one is nearly done."""
        self._expected = list(requests)

    def read(self, requests: Sequence[Request]) -> Iterator[Encoded]:
        """The model's input for each request, in order.

        Raises:
            WorkFailed: An image cannot be read.
        """
        queue = [*requests, *self._expected]
        last = {request.image: place for place, request in enumerate(queue)}
        self._images = {path: seen for path, seen in self._images.items() if path in last}
        begun = 0
        for place, request in enumerate(requests):
            while begun < min(len(queue), place + self._room()):
                self._begin(queue[begun])
                begun += 1
            if not request.image:
                yield self._prompter.encode_text(request.prompt)
                continue
            seen = self._images[request.image].result()
            self._largest = max(self._largest, image_bytes(seen.encoded))
            if last[request.image] == place:
                del self._images[request.image]
            yield self._row(seen, request)

    def _room(self) -> int:
        """How many requests may be prepared ahead of the current one."""
        return max(2 * self._threads, _BYTES_AHEAD // self._largest if self._largest else 0)

    def _begin(self, request: Request) -> None:
        if request.image and request.image not in self._images:
            self._images[request.image] = self._workers.submit(self._see, request)

    def _see(self, request: Request) -> _Seen:
        return _Seen(request.prompt, self._prompter.encode(read_image(request.image), request.prompt))

    def _row(self, seen: _Seen, request: Request) -> Encoded:
        if request.prompt == seen.prompt:
            return seen.encoded
        row = with_other_prompt(seen.encoded, self._tokens(seen.prompt), self._tokens(request.prompt), head=self._head)
        return row or self._see(request).encoded


def image_bytes(row: Encoded) -> int:
    """Bytes of a row's image in memory."""
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


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix of two token sequences."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
