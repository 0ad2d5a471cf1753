"""Batch sizes of inference: as many rows as their tokens and patches allow, fewer once memory has run out."""

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from parityalign.core import Request
from parityalign.models.device import gpus_of
from parityalign.models.encoding import Encoded
from parityalign.models.limits import ROOM_OF_CPU, Room, cached_numbers, patch_side, room_of_gpu
from parityalign.models.pictures import image_bytes

_WINDOW_BYTES = {"cpu": 2**28, "cuda": 2**31}
"""By device: bytes of images in memory while their rows are sorted by length; the model waits until they are there."""
_PATCH = 16
"""Side of a patch in pixels, for towers without patches."""

_BATCHES_UNTIL_LARGER = 50
"""Batches that have to fit, after memory ran out, before a larger one is tried."""

_learned: dict[str, float] = {}
"""By model, after memory ran out: half the share of its room that was too much."""


class BatchRow(NamedTuple):
    """One reply to be written."""

    place: int
    """Index among the requests."""
    request: Request
    encoded: Encoded


class Budget:
    """How much of one model's work fits into memory.

    Attributes:
        room: What fits, by estimate.
        share: How much of it batches take; less after memory ran out.
    """

    def __init__(self, name: str, model: PreTrainedModel) -> None:
        self._name = name
        self._patch = patch_side(model.config) or _PATCH
        self.room = _room(model)
        self.share = _learned.get(name, 1.0)
        self._fitted = 0

    def first(self, rows: Sequence[BatchRow], reply_tokens: int) -> int:
        """How many of the first rows, sorted by length, go at once; one at least."""
        work = _Work(self.room, self._patch, reply_tokens)
        for count, row in enumerate(rows):
            if work.add(row) > self.share and count:
                return count
        return len(rows)

    def halve(self, rows: Sequence[BatchRow], reply_tokens: int) -> None:
        """Notes that these rows were too many, also for the same model opened anew."""
        work = _Work(self.room, self._patch, reply_tokens)
        self.share = min(self.share, max(map(work.add, rows))) / 2
        self._fitted = 0
        _learned[self._name] = self.share

    def fitted(self) -> None:
        """Notes that a batch fitted: after many of them a larger one is tried again."""
        self._fitted += 1
        if self.share < 1 and self._fitted >= _BATCHES_UNTIL_LARGER:
            self.share, self._fitted = min(1.0, 2 * self.share), 0
            _learned[self._name] = self.share


class _Work:
    """A batch that grows, row by row."""

    def __init__(self, room: Room, patch: int, reply_tokens: int) -> None:
        self._room, self._patch, self._reply = room, patch, reply_tokens
        self._rows = self._read = self._patches = 0
        self._prompts: set[tuple[str, str]] = set()
        self._images: set[str] = set()

    def add(self, row: BatchRow) -> float:
        """The share of the room that the batch takes with this row, the longest so far."""
        image, prompt, length = row.request.image, row.request.prompt, len(row.encoded.tokens)
        self._rows += 1
        if (image, prompt) not in self._prompts:
            self._prompts.add((image, prompt))
            self._read += length
        if image not in self._images:
            self._images.add(image)
            self._patches += patches(row.encoded, self._patch)
        return self._room.share(self._rows * (length + self._reply), self._read, self._patches)


def windows(rows: Iterable[BatchRow], device: str = "cpu") -> Iterator[list[BatchRow]]:
    """The rows in parts whose images may lie in memory together, each sorted by length so that little is padded."""
    most = _WINDOW_BYTES.get(device, _WINDOW_BYTES["cpu"])
    window: list[BatchRow] = []
    images: set[str] = set()
    held = 0
    for row in rows:
        window.append(row)
        if row.request.image not in images:
            images.add(row.request.image)
            held += image_bytes(row.encoded)
        if held > most:
            yield sorted(window, key=_length)
            window, images, held = [], set(), 0
    if window:
        yield sorted(window, key=_length)


def patches(row: Encoded, side: int) -> int:
    """Patches of the row's image in the vision tower, which may be more than the tokens made of them."""
    pixels = row.image.get("pixel_values")
    if pixels is None:
        return 0
    shape = pixels.shape
    flat = len(shape) < 4  # some processors cut patches themselves: (patches, numbers)
    return int(shape[-2] if flat else prod(shape) // (shape[-3] * side * side))


def _length(row: BatchRow) -> int:
    return len(row.encoded.tokens)


def _room(model: PreTrainedModel) -> Room:
    gpus = gpus_of(model)
    if not gpus:
        return ROOM_OF_CPU
    text, vision = model.config.get_text_config(decoder=True), getattr(model.config, "vision_config", None)
    width = getattr(vision, "embed_dim", None) or getattr(vision, "hidden_size", None) or text.hidden_size
    free = min(map(_free, gpus))  # of several each has its layers' part of the cache
    return room_of_gpu(free, cached_numbers(text), (text.hidden_size, width), model.dtype.itemsize)


def _free(device: torch.device) -> int:
    """Bytes that a model may take: what no process has, and what this one has and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
