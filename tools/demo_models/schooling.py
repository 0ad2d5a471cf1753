"""What each embedded model is taught, as endless batches drawn from seeds.

The teacher is taught every fact. The student sees as well (its tower is trained on all sights, as small models get
the same vision towers as large ones) but has been told less: half of the words, names and things, and not every
kind of question about charts.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from random import Random
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from parityalign.demo.canvas import Drawing, Fact
from parityalign.demo.worlds import WORLDS

TRAINING_SEEDS = range(0, 1_000_000_000)
"""Pictures that models learn from; the demo's pool and test splits are drawn from other ranges (`generate.py`)."""
TOWER_MIX = {"textvqa": 0.3, "stvqa": 0.22, "chartqa": 0.36, "okvqa": 0.12}
"""Share of each world while the tower learns to notice."""
WHOLE_MIX = {"textvqa": 0.28, "stvqa": 0.14, "chartqa": 0.5, "okvqa": 0.08}
"""Share while the whole model learns to answer: what takes two looks (which bar is the highest?) is learnt last."""
FACTS_A_PICTURE = 5
CUES_A_PICTURE = 10
EXPLAINED_A_PICTURE = 3
ASKED_A_PICTURE = 3
KINDS_UNKNOWN_TO_THE_STUDENT = frozenset({"difference", "lowest", "highest_value", "by_colour", "lookup_slice"})


def student_was_told(fact: Fact) -> bool:
    """Whether the student's schooling held this fact: half of all subjects, by hash, and not all kinds."""
    if fact.kind in KINDS_UNKNOWN_TO_THE_STUDENT:
        return False
    return not fact.subject or _student_knows(fact.subject)


def student_was_shown(sight: str) -> bool:
    """Whether the student was told the names of all that a sight binds."""
    return all(map(_student_knows, sight.split()))


def _student_knows(name: str) -> bool:
    return sha256(name.encode()).digest()[0] % 2 == 0


def world_of(rng: Random, mix: Mapping[str, float]) -> str:
    """The task of a picture's world, the first thing that is drawn from its seed."""
    return rng.choices(tuple(mix), tuple(mix.values()))[0]


def drawn(seed: int, mix: Mapping[str, float] = TOWER_MIX) -> tuple[str, Drawing]:
    """The training picture of a seed and the task of its world; a third pass through JPEG, as photographs do."""
    rng = Random(seed)
    task = world_of(rng, mix)
    picture = WORLDS[task](rng)
    if rng.random() < 0.35:
        buffer = io.BytesIO()
        picture.image.save(buffer, "JPEG", quality=rng.randint(75, 95))
        picture = picture._replace(image=Image.open(buffer))
    return task, picture


def pixels(pictures: Sequence[Drawing]) -> torch.Tensor:
    """(pictures, 3, SIDE, SIDE) bytes."""
    return torch.from_numpy(np.stack([np.asarray(picture.image) for picture in pictures])).permute(0, 3, 1, 2)


class SightBatch(NamedTuple):
    """For the tower: what each cue should find in each picture."""

    pixels: torch.Tensor
    """(pictures, 3, SIDE, SIDE), uint8."""
    cues: torch.Tensor
    """(pictures, cues), numbers of cues; padded with 0."""
    names: torch.Tensor
    """(pictures, cues, names): the shares of what is to be found, which sum to 1, or to 0 where there is no cue."""


class Lessons(Protocol):
    """Batch number -> batch; the same number gives the same batch."""

    def batch(self, number: int) -> tuple[torch.Tensor, ...]:
        """The batch of a number."""


def cued(sights: Iterable[str]) -> dict[str, set[str]]:
    """{cue: what it finds}: "red bar 40" is asked as "red bar ?", "mon 40" as "mon ?" and as "? 40".

    A sight of one word is found by the empty cue, which asks what there is.
    """
    found: dict[str, set[str]] = {}
    for sight in sights:
        *first, last = sight.split()
        found.setdefault(" ".join([*first, "?"]) if first else "", set()).add(last)
        if len(first) == 1:
            found.setdefault(f"? {last}", set()).add(first[0])
    return found


class SightLessons:
    """Batch number -> pictures with cues and what they should find."""

    def __init__(self, sights: Iterable[str], batch_size: int) -> None:
        found = cued(sights)
        self.cues = {cue: number for number, cue in enumerate(sorted(found))}
        self.names = {name: number for number, name in enumerate(sorted(set().union(*found.values())))}
        self.batch_size = batch_size

    def batch(self, number: int) -> SightBatch:
        """The batch of a number; a cue or name that was not met while listing them is left out."""
        first = TRAINING_SEEDS.start + number * self.batch_size
        pictures = [drawn(seed)[1] for seed in range(first, first + self.batch_size)]
        found = [list(cued(picture.sights).items()) for picture in pictures]
        cues = torch.zeros(len(pictures), max(map(len, found)), dtype=torch.long)
        names = torch.zeros(*cues.shape, len(self.names))
        for row, pairs in enumerate(found):
            for column, (cue, sought) in enumerate(pairs):
                known = [self.names[name] for name in sought if name in self.names]
                if cue in self.cues and known:
                    cues[row, column] = self.cues[cue]
                    names[row, column, known] = 1 / len(known)
        return SightBatch(pixels(pictures), cues, names)


class TalkBatch(NamedTuple):
    """For the whole model: several questions a picture in one row, each seeing the picture but not the others."""

    pixels: torch.Tensor
    """(rows, 3, SIDE, SIDE), uint8."""
    tokens: torch.Tensor
    """(rows, length)."""
    labels: torch.Tensor
    """(rows, length): the token itself where it belongs to an answer, else -100."""
    segments: torch.Tensor
    """(rows, length): 0 for the picture, 1, 2, ... for the questions, -1 for padding."""
    positions: torch.Tensor
    """(rows, length): counted anew in each question, as if it stood alone behind the picture."""


class Talk(NamedTuple):
    """One turn: what is asked after the picture and what is to be said, as tokens."""

    asked: list[int]
    said: list[int]


class TalkLessons:
    """Batch number -> pictures with packed questions."""

    def __init__(
        self,
        prefix: list[int],
        talks: Callable[[str, Drawing, Random], list[Talk]],
        batch_size: int,
        first: int,
    ) -> None:
        self.prefix, self.talks, self.batch_size, self.first = prefix, talks, batch_size, first

    def batch(self, number: int) -> TalkBatch:
        """The batch of a number."""
        first = self.first + number * self.batch_size
        pictures, rows = [], []
        for seed in range(first, first + self.batch_size):
            task, picture = drawn(seed, WHOLE_MIX)
            pictures.append(picture)
            rows.append(self.talks(task, picture, Random(f"talk {seed}")))
        return TalkBatch(pixels(pictures), *packed(self.prefix, rows))


def packed(prefix: list[int], rows: Sequence[list[Talk]]) -> tuple[torch.Tensor, ...]:
    """Tokens, labels, segments and positions of rows that share a prefix, padded right to the longest."""
    columns: list[list[list[int]]] = []
    for talks in rows:
        tokens, labels = list(prefix), [-100] * len(prefix)
        segments, positions = [0] * len(prefix), list(range(len(prefix)))
        for number, talk in enumerate(talks, start=1):
            length = len(talk.asked) + len(talk.said)
            tokens += talk.asked + talk.said
            labels += [-100] * len(talk.asked) + talk.said
            segments += [number] * length
            positions += range(len(prefix), len(prefix) + length)
        columns.append([tokens, labels, segments, positions])
    longest = max(len(row[0]) for row in columns)
    padding = (0, -100, -1, 0)
    return tuple(
        torch.tensor([row[kind] + [padding[kind]] * (longest - len(row[kind])) for row in columns]) for kind in range(4)
    )


def visible(segments: torch.Tensor) -> torch.Tensor:
    """(rows, 1, length, length), true where a token may look: back at the picture and within its own question."""
    same = segments[:, :, None] == segments[:, None, :]
    picture = segments[:, None, :] == 0
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    # Padding rows must see something, or their softmax has no finite value.
    return ((same | picture) & causal)[:, None]
