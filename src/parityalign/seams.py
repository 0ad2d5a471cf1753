"""The contracts between rooms. A seam is one call; an implementation is settings -> something that has it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from parityalign.records import Pair, Question, Score

Metric = Callable[[str, Sequence[str]], Score]
"""(prediction, references) -> Score."""


Progress = Callable[[str, int, int], None]
"""(step, items done, items in all); called often, must be cheap."""


@dataclass(frozen=True)
class Task:
    """A VQA skill: its prompts, its metric, its benchmark reader. One file in `tasks/` defines one, as `TASK`."""

    name: str
    metric_name: str
    """Name of the function in `matching.py`; written beside every score."""
    metric: Metric
    """The official metric; also the default rule of identify."""
    annotate_prompt: str
    """Asks for one question and its answer, in the form that `parsing.read_pair` reads."""
    answer_prompt: str
    """A format string with `{question}`; the same in identify, level and evaluate."""
    read_test: Callable[[Path], list[Question]]
    """Reads the labelled test split from a folder that holds the benchmark's files as released."""


@dataclass(frozen=True)
class Decoding:
    """How a model picks tokens."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 means greedy."""


@dataclass(frozen=True)
class Request:
    """One image and one prompt for a model."""

    image: str
    """Path of the image file."""
    prompt: str
    seed: int = 0
    """Decides the draw where the temperature is above 0; the same request gives the same text in any batch."""


class Model(Protocol):
    """Text from images. Implementations in `models/` are built by `load(location) -> Model`."""

    @property
    def name(self) -> str:
        """Where the model is, as the user wrote it (`embedded:teacher`, `hf:./folder`)."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the weights or the processor change; part of every manifest that depends on them."""

    @property
    def special_tokens(self) -> frozenset[str]:
        """Texts that the model's processor would not read as plain text, such as an image placeholder."""

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order, special tokens left in place only where the model wrote them."""


@dataclass(frozen=True)
class LevelResult:
    """What training did, for the manifest and the report."""

    steps: int
    best_step: int
    held_out_loss_before: float
    held_out_loss_after: float
    skipped_steps: int = 0


class Leveller(Protocol):
    """Fine-tunes the student on pairs and saves an ordinary Hugging Face folder."""

    def __call__(self, pairs: Sequence[Pair], held_out: Sequence[Pair], out: Path) -> LevelResult:
        """Trains on `pairs`, stops early by the loss on `held_out`, saves the best checkpoint to `out`."""
