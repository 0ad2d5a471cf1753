"""Gives a model's inputs in the order of its questions, while pictures of the next ones are being prepared."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future

from parityalign.core import Request
from parityalign.models.encoding import Encoded, Seen
from parityalign.models.features import PictureFeatures
from parityalign.models.pictures import Pictures, image_bytes

_BYTES_AHEAD = {"cpu": 2**30, "cuda": 2**31}
"""By device: bytes of images that are prepared ahead; beside a GPU as much as a window (see `_batches.py`)."""


class Reader:
    """Turns requests into a model's input, some of them ahead of time."""

    def __init__(self, pictures: Pictures, features: PictureFeatures, device: str = "cpu") -> None:
        self._pictures, self._features = pictures, features
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
        begun, reached = 0, set[str]()
        for place, request in enumerate(requests):
            reached.add(request.image)
            while begun < len(queue) and (begun <= place or self._may_begin(reached)):
                self._begin(queue[begun])
                begun += 1
            if not request.image:
                yield self._pictures.without(request.prompt)
                continue
            seen = self._begun[request.image].result()
            self._features.note(request.image, seen)
            if last[request.image] == place:
                del self._begun[request.image]
            yield self._pictures.row(request.image, seen, request.prompt)

    def _may_begin(self, reached: Collection[str]) -> bool:
        """Whether another picture may be held; pictures that come again later are held until then."""
        if len(self._begun) < (self._bytes_ahead // self._largest if self._largest else 0):
            return bool(self._pictures.workers)
        ahead = sum(image not in reached for image in self._begun)
        return ahead < 2 * self._pictures.workers

    def _begin(self, request: Request) -> None:
        if not request.image or request.image in self._begun:
            return
        known = self._features.known(request.image)
        begun = _done(known) if known else self._pictures.begin(request.image, request.prompt)
        begun.add_done_callback(self._note)
        self._begun[request.image] = begun

    def _note(self, done: Future[Seen]) -> None:
        """Notes how large a picture is."""
        if not done.cancelled() and not done.exception():
            self._largest = max(self._largest, image_bytes(done.result().encoded))


def _done(seen: Seen) -> Future[Seen]:
    done: Future[Seen] = Future()
    done.set_result(seen)
    return done
