"""Training rows and batches: the prompt exactly as in inference, the loss on the answer and its end token only."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from parityalign.models import Array, LabelEncoder, LabelledRow, Processor, read_image, stack
from parityalign.training.augment import augmented_view

CACHE_BYTES = 2**30
"""Bytes of the cache of decoded images."""

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


class AnswerCollator:
    """Collates examples into right-padded batches."""

    def __init__(
        self,
        processor: Processor,
        stop: Collection[int],
        *,
        join: Join | None = None,
        views: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Batches for one student.

        Args:
            processor: The student's.
            stop: The ids that stop its generation.
            join: Gives the tensors that terms of the loss need besides the model's inputs.
            views: Whether a batch also has an augmented view of each picture, under `view`, different at each visit.
            cache_bytes: Bytes of the cache of decoded images.

        Raises:
            UserError: The student has no end token, so it could not learn to end an answer.
        """
        self._encoder = LabelEncoder(processor, stop)
        self._join = join
        self._views = views
        self._cache_left = cache_bytes
        self._images: dict[str, dict[str, Array]] = {}
        self._rows: dict[Example, LabelledRow] = {}

    def __call__(self, examples: Sequence[Example], visit: int = 0) -> dict[str, Any]:
        """The model's inputs and `labels` (rows, tokens): the answer's tokens and the end token, else -100.

        Also the tensors of `join`, and, as nested batches, `view` and `explained` (the examples with a rationale).

        Args:
            examples: The rows.
            visit: Seeds the augmented view.
        """
        rows = [self.row_of(example) for example in examples]
        batch: dict[str, Any] = self._inputs(rows)
        if self._join:
            batch |= self._join([example.pair_id for example in examples], rows)
        if self._views:
            batch["view"] = self._inputs([self._augmented_row(example, visit) for example in examples])
        told = [row for row, example in enumerate(examples) if example.rationale]
        if told:
            rationales = [self.row_of(_with_rationale(examples[row])) for row in told]
            batch["explained"] = {**self._inputs(rationales), "explains": torch.tensor(told)}
        return batch

    def plain(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Only the model's inputs and `labels`."""
        return self._inputs([self.row_of(example) for example in examples])

    def row_of(self, example: Example) -> LabelledRow:
        """One row, with pixels in half precision: they come from 8 bits, and twice as many fit into memory."""
        image, row = self._images.get(example.image), self._rows.get(example)
        if image is None or row is None:
            prompt = self._encoder.prompter.encode(read_image(example.image), example.prompt)
            image = {key: _halved(array) for key, array in prompt.image.items()}
            row = self._encoder.encode(replace(prompt, image={}), example.prompt, example.answer)
            self._rows[example] = row
            self._keep(example.image, image)
        return replace(row, encoded=replace(row.encoded, image=image))

    def _augmented_row(self, example: Example, visit: int) -> LabelledRow:
        """The same row with an augmented view of its picture, not cached since views hardly ever repeat."""
        picture = augmented_view(read_image(example.image), f"{example.pair_id} {visit}")
        prompt = self._encoder.prompter.encode(picture, example.prompt)
        return self._encoder.encode(prompt, example.prompt, example.answer)

    def _inputs(self, rows: Sequence[LabelledRow]) -> dict[str, torch.Tensor]:
        batch = stack([row.encoded for row in rows], pad_token=self._encoder.pad_token, side="right")
        tensors = {key: torch.from_numpy(array) for key, array in batch.items()}
        return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}

    def _keep(self, path: str, image: dict[str, Array]) -> None:
        """Caches an image if there is room; without eviction, since after shuffling all are equally likely next."""
        size = sum(array.nbytes for array in image.values())
        if path not in self._images and size <= self._cache_left:
            self._images[path] = image
            self._cache_left -= size


def _with_rationale(example: Example) -> Example:
    """The rationale of an example as an example."""
    return Example(example.image, example.rationale_prompt, example.rationale)


def _halved(array: Array) -> Array:
    return array.astype(np.float16) if array.dtype == np.float32 else array
