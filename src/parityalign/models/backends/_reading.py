"""Gives a model's inputs in the order of its questions, while pictures of the next ones are being prepared."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from parityalign.core import Request
from parityalign.models.encoding import Encoded, Seen
from parityalign.models.pictures import Pictures, image_bytes

_BYTES_AHEAD = {"cpu": 2**30, "cuda": 2**32}
"""By device: bytes of images that are prepared ahead; beside a GPU more than one window of them (see `_batches.py`)."""


class Reader:
    """Turns requests into a model's input, some of them ahead of time."""

    def __init__(self, pictures: Pictures, device: str = "cpu") -> None:
        self._pictures = pictures
        self._bytes_ahead = _BYTES_AHEAD.get(device, _BYTES_AHEAD["cpu"])
        self._begun: dict[str, Future[Seen]] = {}
        self._expected: list[Request] = []
        self._largest = 0

    def expect(self, requests: Sequence[Request]) -> None:
        """Announces the requests after the next `read`; preparing them begins when that one is nearly done."""
        self._expected = list(requests)

    def close(self) -> None:
        """Gives up what is being prepared."""
        self._begun.clear()
        self._pictures.close()

    def read(self, requests: Sequence[Request]) -> Iterator[Encoded]:
        """The model's input for each request, in order.

        Raises:
            WorkFailed: An image cannot be read.
        """
        queue = [*requests, *self._expected]
        last = {request.image: place for place, request in enumerate(queue)}
        self._begun = {path: seen for path, seen in self._begun.items() if path in last}
        begun = 0
        for place, request in enumerate(requests):
            while begun < len(queue) and (begun <= place or len(self._begun) < self._room()):
                self._begin(queue[begun])
                begun += 1
            if not request.image:
                yield self._pictures.without(request.prompt)
                continue
            seen = self._begun[request.image].result()
            self._largest = max(self._largest, image_bytes(seen.encoded))
            if last[request.image] == place:
                del self._begun[request.image]
            yield self._pictures.row(request.image, seen, request.prompt)

    def _room(self) -> int:
        """How many pictures may be held, prepared or being prepared; 0: none ahead of the current one."""
        if not self._pictures.workers:
            return 0
        return max(2 * self._pictures.workers, self._bytes_ahead // self._largest if self._largest else 0)

    def _begin(self, request: Request) -> None:
        if request.image and request.image not in self._begun:
            self._begun[request.image] = self._pictures.begin(request.image, request.prompt)
