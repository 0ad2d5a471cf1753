"""The order of training examples in which those about one picture stand together."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from parityalign.training.collator import Example


class PictureSampler(Sampler[int]):
    """The places of examples, picture by picture, in an order of pictures that differs from epoch to epoch."""

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        """Puts together what is about one picture.

        Args:
            examples: All.
            seed: Of the order; with the epoch it decides it.
        """
        pictures: dict[str, list[int]] = {}
        for place, example in enumerate(examples):
            pictures.setdefault(example.image, []).append(place)
        self._pictures = list(pictures.values())
        self._count = len(examples)
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        """The number of examples."""
        return self._count

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next; accelerate does, also after a resume."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """The places of an epoch."""
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        for picture in torch.randperm(len(self._pictures), generator=generator).tolist():
            yield from self._pictures[picture]
