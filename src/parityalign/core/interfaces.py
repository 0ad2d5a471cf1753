"""The contracts between rooms. A seam is one call; an implementation is settings -> something that has it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from parityalign.core.json_rows import Row
from parityalign.core.records import Pair, Question, Score, Verdict


@dataclass(frozen=True)
class Metric:
    """How right a prediction is. One file in `metrics/` defines one, as `METRIC`."""

    name: str
    """Written beside every score."""
    score: Callable[[str, Sequence[str]], Score]
    """(prediction, a test question's references) -> Score."""
    against_one: Callable[[str, str], Score] | None = None
    """(prediction, a pair's one answer) -> Score. None: `score` with a list of one."""
    needs_several: bool = False
    """Whether a test question with a single reference cannot be scored, as each annotator is compared with the rest."""

    def on_pair(self, prediction: str, answer: str) -> Score:
        """The score of a prediction against a pair's one answer."""
        return self.against_one(prediction, answer) if self.against_one else self.score(prediction, [answer])


if TYPE_CHECKING:  # it brings NumPy along, which the command line can do without
    from parityalign.core.observations import Observation

EXPLAIN = (
    "Explain in one short sentence how the image shows the answer, then answer using a single word or phrase.\n"
    "Reply in this form only. Explanation: <your explanation> Answer: <your answer>"
)
"""Asks any model for the way to its answer."""


Progress = Callable[[str, int, int], None]
"""(step, items done, items in all); called often, must be cheap."""


@dataclass(frozen=True)
class Found:
    """Something that a source offers as an image; nothing is read yet."""

    name: str
    """Where it lies, as text for people: a path, or the path of a shard and the place in it."""
    read: Callable[[], bytes]
    """Gives its content.

    Raises:
        Unfit: It cannot be read; the error says why."""
    path: Path | None = None
    """Its own file. None: it has none, as it lies in another."""


@dataclass(frozen=True)
class Source:
    """Where unlabelled images come from. A file in `sources/` makes one, by `open_source(location) -> Source`."""

    where: str
    """As the user wrote it, with full paths."""
    digest: Callable[[], str]
    """Changes when an image comes, goes or changes; opens no image."""
    count: Callable[[], int | None]
    """How many images are offered; None where nobody knows before the last."""
    images: Callable[[], Iterator[Found]]
    """The images one by one, always in the same order."""
    holds_files: bool = True
    """Whether each image is a file of its own; others are written into the run."""


@dataclass(frozen=True)
class Task:
    """A VQA skill: its prompts, its metric, its benchmark reader. One file in `tasks/` defines one, as `TASK`."""

    name: str
    metric: Metric
    """The official metric; also the default rule of identify."""
    annotate_prompt: str
    """Asks for one question and its answer, in the form that `parsing.read_pair` reads."""
    answer_prompt: str
    """A format string with `{question}`; the same in identify, level and evaluate."""
    read_test: Callable[[Path], list[Question]]
    """Reads the labelled test split from a folder that holds the benchmark's files as released.

    A question comes with the path of its image, there or not, and with no answers where the file has none."""
    explain_prompt: str = "{question}\n" + EXPLAIN
    """A format string with `{question}`; asks for the way to the answer first, in the form that
    `parsing.read_explanation` reads."""
    read_row: Callable[[Row], Question] | None = None
    """Reads a row of the benchmark's Hugging Face copies; the question's image is the name that the row has for it."""
    splits: tuple[str, ...] = ()
    """Names of the labelled split in those copies, the best first."""
    annotators: int | None = None
    """Answers that every question of the benchmark has; None: any number."""
    subsets: Mapping[str, Callable[[Question], bool]] = field(default_factory=dict)
    """The parts that a configuration may choose and which questions are in them; the first is the default."""


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
    """Path of the image file; empty where a `Remote` is asked without one."""
    prompt: str
    seed: int = 0
    """Decides the draw where the temperature is above 0; the same request gives the same text in any batch."""


class Model(Protocol):
    """Text from images: what the `load` of a `Backend` makes, or `engines` of a `Remote`."""

    @property
    def name(self) -> str:
        """Where the model is, as the user wrote it (`embedded:teacher`, `hf:./folder`)."""

    @property
    def special_tokens(self) -> frozenset[str]:
        """Texts that the model's processor would not read as plain text, such as an image placeholder."""

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order, special tokens left in place only where the model wrote them."""


@runtime_checkable
class Observer(Protocol):
    """A model that shows more than its text; most that run in this process are one."""

    @property
    def special_tokens(self) -> frozenset[str]:
        """As in `Model`."""

    def observe(self, told: Sequence[tuple[Request, str]]) -> "list[Observation | None]":
        """What the model shows when each request is followed by the given text as if it were its own reply.

        None where nothing is known of a text. The arrays hold the end token too."""


@runtime_checkable
class Local(Protocol):
    """What a `Model` has as well if it runs in this process, so that what it takes can be measured."""

    def parameters(self) -> int:
        """How many numbers its weights are."""

    def fits_twice(self) -> bool:
        """Whether there is memory left for another model of its size."""

    def peak_bytes(self, work: Callable[[], object]) -> int | None:
        """Does the work and gives the memory that the model took at most meanwhile, with its weights.

        None where this machine does not say."""


@runtime_checkable
class LooksAhead(Protocol):
    """What a `Model` may have as well: it makes ready what will be asked, while it works on what is asked."""

    def expect(self, requests: Sequence[Request]) -> None:
        """Notes what will be asked after the next call of `generate`. No reply hangs on it."""


@dataclass(frozen=True)
class LevelResult:
    """What training did, for the manifest and the report."""

    steps: int
    best_step: int
    held_out_loss_before: float
    held_out_loss_after: float
    skipped_steps: int = 0
    rows_at_once: int | None = None
    """Pairs that went through the student together, where memory ran out with more. None: it never did."""


class Leveller(Protocol):
    """Fine-tunes the student on pairs and saves an ordinary Hugging Face folder."""

    def __call__(self, pairs: Sequence[Pair], held_out: Sequence[Pair], out: Path) -> LevelResult:
        """Trains on `pairs`, stops early by the loss on `held_out`, saves the best checkpoint to `out`."""


@dataclass(frozen=True)
class Judged:
    """A pair with its verdict, on its way to another tool: none of its texts holds a tag such as `<image>`."""

    pair: Pair
    verdict: Verdict
    asked: str
    """What stands in the user's turn: the question, or the task's answer prompt around it."""


@dataclass(frozen=True)
class Scored:
    """One model's answer to a question of a test split, with its score."""

    task: str
    model: str
    """`before`, `after` or `teacher`."""
    question: Question
    prediction: str
    metric: str
    score: Score


@dataclass(frozen=True)
class Origin:
    """Where a run's pairs come from, for those who get them without the run. Names, not paths, of local things."""

    teacher: str
    student: str
    seed: int
    judged_by: str
    """The rule of identify, in words."""
    exported: str
    """`gaps` or `all`."""
    sources: Mapping[str, str]
    """Of each task: where its images came from."""
    annotate_prompts: Mapping[str, str]
    answer_prompts: Mapping[str, str]
    pairs: int
    verdicts: Mapping[str, Mapping[str, int]]
    """Of each task: how many pairs have which verdict, gaps or not."""


class Exportable(Protocol):
    """What a run has for other tools. Everything is read when it is asked for, row by row."""

    def origin(self) -> Origin:
        """Where the pairs come from."""

    def judged(self) -> Iterator[Judged]:
        """The pairs to export, gaps or all, in the order of the run."""

    def scored(self) -> Iterator[Scored]:
        """All answers to the test splits, model by model."""


Export = Callable[[Exportable, Path], Mapping[str, int]]
"""(run, an empty folder) -> what was written there, counted. A file in `exports/` defines one as `write`, and as
`OF` the artifacts that it is made of."""
