"""Training rows and batches: the prompt exactly as in inference, the loss on the answer and its end token only."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from parityalign.models import (
    EXPLAINED_LABELS,
    IGNORE_INDEX,
    Array,
    Encoded,
    LabelEncoder,
    LabelledRow,
    PictureProcesses,
    Pictures,
    Processor,
    Prompter,
    RowSharing,
    Seen,
    SharedRow,
    image_bytes,
    read_image,
    sent,
    stack,
    this_device,
)
from parityalign.training.augment import augmented_view
from parityalign.training.bundles import Bundle, Row
from parityalign.training.tower import FrozenTower, TowerOutputs, has_pixels, without_pixels

CACHE_BYTES = 2**30
"""Bytes of pictures that are kept."""
_ROWS_BYTES = 2**27
"""Bytes of tokens that are kept."""

K = TypeVar("K")
V = TypeVar("V")
Join = Callable[[Sequence[str], Sequence[LabelledRow]], dict[str, torch.Tensor]]
"""(pair ids, their rows) -> tensors that terms of the loss need besides the answers."""


@dataclass(frozen=True)
class Example:
    """One pair as a training example."""

    image: str
    """Path of the image file."""
    prompt: str
    """The task's answer prompt with the question in it."""
    answer: str
    pair_id: str = ""
    rationale_prompt: str = ""
    """The prompt of the rationale."""
    rationale: str = ""
    """The teacher's rationale; empty if there is none or none is needed."""


@dataclass(frozen=True)
class Begun:
    """Examples whose pictures are being prepared."""

    examples: Sequence[Example]
    pictures: "list[Future[Seen]]"
    views: "list[Future[Encoded]]"
    """The augmented views; empty if no term needs them."""


class AnswerCollator:
    """Collates examples into right-padded batches.

    Attributes:
        tower: Knows what the frozen tower makes of pictures, which batches then hold in place of pixels. None: they
            hold pixels.
    """

    def __init__(
        self,
        processor: Processor,
        stop: Collection[int],
        *,
        join: Join | None = None,
        views: bool = False,
        workers: int | None = None,
        processes: PictureProcesses | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Batches for one student.

        Args:
            processor: The student's.
            stop: The ids that stop its generation.
            join: Gives the tensors that terms of the loss need besides the model's inputs.
            views: Whether a batch also has an augmented view of each picture, under `view`, different at each visit.
            workers: Threads that prepare pictures; None: as many as this machine is good for.
            processes: What they hand their pictures to.
            cache_bytes: Bytes of pictures that are kept.

        Raises:
            UserError: The student has no end token, so it could not learn to end an answer.
        """
        self._encoder = LabelEncoder(processor, stop)
        self._pictures = Pictures(self._encoder.prompter, workers, processes=processes)
        self._join = join
        self._views = views
        self._device = torch.device(this_device())
        self._images = _Kept[str, Future[Seen]](cache_bytes)
        self._texts = _Kept[Example, _Text](_ROWS_BYTES)
        self.tower: FrozenTower | None = None

    @property
    def prompter(self) -> Prompter:
        """The student's."""
        return self._encoder.prompter

    def close(self) -> None:
        """Gives up the pictures that are being prepared."""
        self._pictures.close()

    def __call__(self, examples: Sequence[Example], visit: int = 0) -> dict[str, Any]:
        """The batch of these examples, each with a row of its own; see `batch`.

        Args:
            examples: The rows.
            visit: Seeds the augmented view.
        """
        return self.batch([Bundle([row], 0, 0, 0) for row in self.rows(self.begin(examples, visit))])

    def begin(self, examples: Sequence[Example], visit: int = 0) -> Begun:
        """Begins to prepare the pictures of examples.

        Args:
            examples: The examples.
            visit: Seeds the augmented view.
        """
        pictures = [self._begun(example) for example in examples]
        views = [self._augmented(example, visit) for example in examples] if self._views else []
        return Begun(examples, pictures, views)

    def _begun(self, example: Example) -> "Future[Seen]":
        known = self.tower.known(example.image) if self.tower else None
        if known is None:
            return self._pictures.begin(example.image, example.prompt)
        there: Future[Seen] = Future()
        there.set_result(known)
        return there

    def ahead(self, examples: Sequence[Example], count: int) -> Iterator[list[Row]]:
        """The rows of examples, so many at a time, while pictures of the next are being prepared."""
        parts = (examples[start : start + count] for start in range(0, len(examples), count))
        begun = map(self.begin, parts)
        waiting = next(begun)
        for following in begun:
            yield self.rows(waiting)
            waiting = following
        yield self.rows(waiting)

    def rows(self, begun: Begun) -> list[Row]:
        """The student's inputs, once their pictures are prepared.

        Raises:
            WorkFailed: A picture cannot be read.
        """
        views: list[Encoded | None] = [view.result() for view in begun.views]
        views = views or [None] * len(begun.examples)
        return [self._row(*each) for each in zip(begun.examples, begun.pictures, views, strict=True)]

    def batch(self, bundles: Sequence[Bundle], sharing: RowSharing | None = None) -> dict[str, Any]:
        """The model's inputs and `labels` (rows, tokens): the answers' tokens and their end tokens, else -100.

        Also the tensors of `join`, what the `tower` makes, and nested batches: `view`, and `explained` of the examples
        with a rationale. Where examples share rows, `lengths` tells their labels apart; see `_passes.py`.

        Args:
            bundles: The examples.
            sharing: How those about one picture share a row; None: each has its own.
        """
        rows = [row for bundle in bundles for row in bundle.rows]
        explains = [place for place, row in enumerate(rows) if row.rationale]
        several = any(bundle.prefix and len(bundle.shared.segments) > 1 for bundle in bundles)
        together = sharing if several else None
        batch = self._together(bundles, together) if together else self._apart(rows)
        if explains:
            batch["explained"]["explains"] = self._number(explains)
        if self._join:
            batch |= self._join([row.pair_id for row in rows], [row.answer for row in rows])
        if self._views:
            batch["view"] = self._inputs([row.view for row in rows if row.view])
        return batch

    def _apart(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Each example, and each rationale, in a row of its own."""
        batch = self._inputs([row.answer for row in rows]) | self._of_tower(rows)
        explained = [row for row in rows if row.rationale]
        rationales = [row.rationale for row in explained if row.rationale]
        return batch | ({"explained": self._inputs(rationales) | self._of_tower(explained)} if rationales else {})

    def _together(self, bundles: Sequence[Bundle], sharing: RowSharing) -> dict[str, Any]:
        """Each bundle in a row of its own."""
        rows = [row for bundle in bundles for row in bundle.rows]
        explained = [row.rationale for row in rows if row.rationale]
        shared = [_told_apart(bundle) if explained else bundle.shared for bundle in bundles]
        batch: dict[str, Any] = sharing.stack(shared, pad_token=self._encoder.pad_token, device=self._device)
        batch |= self._of_tower([bundle.rows[0] for bundle in bundles])
        batch["lengths"] = self._number([row.labels for row in rows])
        if explained:
            lengths = self._number([len(rationale.ends) for rationale in explained])
            batch["explained"] = {"labels": batch.pop(EXPLAINED_LABELS), "lengths": lengths}
        return batch

    def _of_tower(self, rows: Sequence[Row]) -> dict[str, TowerOutputs]:
        """What stands for the pixels of rows."""
        if self.tower is None:
            return {}
        unseen = {row.image: row.unseen for row in rows if row.unseen}
        return {"tower": TowerOutputs(self.tower, [row.image for row in rows], unseen)}

    def _number(self, numbers: list[int]) -> torch.Tensor:
        return sent(torch.tensor(numbers), self._device)

    def plain(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Only the model's inputs and `labels`."""
        return self._inputs([self.row_of(example) for example in examples])

    def row_of(self, example: Example) -> LabelledRow:
        """One row."""
        return self._labelled(example, self._kept(example.image, self._pictures.begin(example.image, example.prompt)))

    def _row(self, example: Example, picture: "Future[Seen]", view: Encoded | None) -> Row:
        explained = _with_rationale(example) if example.rationale else None
        unseen = self._kept(example.image, picture)
        seen = without_pixels(unseen) if self.tower else unseen
        return Row(
            example.pair_id,
            example.image,
            self._labelled(example, seen),
            self._labelled(explained, seen) if explained else None,
            self._encoder.encode(view, example.prompt, example.answer) if view else None,
            # A tower that gave up since knows none, also of pictures that were begun without their pixels.
            unseen if self.tower and has_pixels(unseen) and not self.tower.known(example.image) else None,
        )

    def _kept(self, path: str, picture: "Future[Seen]") -> Seen:
        """A picture. It stays prepared as far as there is room, unless a frozen tower's output is kept in its place."""
        seen = picture.result()
        if self.tower is None or (has_pixels(seen) and not (self.tower.keeps or self.tower.known(path))):
            self._images.keep(path, picture, image_bytes(seen.encoded))
        return seen

    def _labelled(self, example: Example, seen: Seen) -> LabelledRow:
        text = self._texts.get(example)
        if text is None:
            prompt = self._pictures.row(example.image, seen, example.prompt)
            text = _Text.of(self._encoder.encode(prompt, example.prompt, example.answer))
            self._texts.keep(example, text, text.nbytes)
        return text.with_picture(seen.encoded)

    def _augmented(self, example: Example, visit: int) -> "Future[Encoded]":
        """An augmented view of the example's picture; not kept, since views hardly ever repeat."""

        def encoded() -> Encoded:
            picture = augmented_view(read_image(example.image), f"{example.pair_id} {visit}")
            return self._encoder.prompter.encode(picture, example.prompt)

        return self._pictures.submit(encoded)

    def _inputs(self, rows: Sequence[LabelledRow]) -> dict[str, torch.Tensor]:
        encoded = [row.encoded for row in rows]
        return stack(encoded, pad_token=self._encoder.pad_token, side="right", device=self._device)


class _Text(NamedTuple):
    """A labelled row without its picture, in a few bytes a token."""

    per_token: dict[str, Array]
    ends: Array

    @classmethod
    def of(cls, row: LabelledRow) -> "_Text":
        per_token = {key: np.array(values, dtype=np.int32) for key, values in row.encoded.per_token.items()}
        return cls(per_token, np.array(row.ends, dtype=np.int32))

    @property
    def nbytes(self) -> int:
        return self.ends.nbytes + sum(values.nbytes for values in self.per_token.values())

    def with_picture(self, encoded: Encoded) -> LabelledRow:
        per_token = {key: values.tolist() for key, values in self.per_token.items()}
        return LabelledRow(replace(encoded, per_token=per_token), self.ends.tolist())


class _Kept(Generic[K, V]):
    """Values by key as long as there is room; none gives way, since after shuffling all are equally likely next."""

    def __init__(self, room: int) -> None:
        self._left = room
        self._held: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> V | None:
        return self._held.get(key)

    def keep(self, key: K, value: V, size: int) -> None:
        """Keeps a value of so many bytes if there is room."""
        if key not in self._held and size <= self._left:
            self._held[key] = value
            self._left -= size


def _with_rationale(example: Example) -> Example:
    """The rationale of an example as an example."""
    return Example(example.image, example.rationale_prompt, example.rationale)


def _told_apart(bundle: Bundle) -> SharedRow:
    """A bundle's row with the labels of rationales beside those of answers."""
    answers = [[_labelled_as("labels", row.answer)] for row in bundle.rows]
    rationales = [[_labelled_as(EXPLAINED_LABELS, row.rationale)] if row.rationale else [] for row in bundle.rows]
    pairs = zip(answers, rationales, strict=True)
    return SharedRow([segment for answer, rationale in pairs for segment in answer + rationale], bundle.prefix)


def _labelled_as(key: str, row: LabelledRow) -> LabelledRow:
    labels = row.encoded.per_token["labels"]
    unlabelled = [IGNORE_INDEX] * len(labels)
    both = {"labels": unlabelled, EXPLAINED_LABELS: unlabelled, key: labels}
    return replace(row, encoded=replace(row.encoded, per_token={**row.encoded.per_token, **both}))
