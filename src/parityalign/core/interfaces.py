"""The protocols between packages. A plug-in is a module that defines one of these under a fixed name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from parityalign.core.json_rows import Row
from parityalign.core.prompts import KIND_FIELD, fault_of_answer_prompt
from parityalign.core.records import Pair, Question, Score, Verdict, content_id
from parityalign.core.registry import did_you_mean, fault_of_function, has_part, part_names


@dataclass(frozen=True)
class Metric:
    """Scores a prediction. Each file in `metrics/` defines one, as `METRIC`."""

    name: str
    """Recorded with every score."""
    score: Callable[[str, Sequence[str]], Score]
    """(prediction, a test question's references) -> Score."""
    against_one: Callable[[str, str], Score] | None = None
    """(prediction, a pair's one answer) -> Score. None: `score` with a list of one."""
    needs_several: bool = False
    """Whether a question needs several references, since each annotator is compared with the others."""
    with_exact: Callable[[str, Sequence[str], Sequence[bool]], Score] | None = None
    """(prediction, references, `Question.exact`) -> Score, where some answers have to be met exactly. None: `score`."""

    def on_question(self, prediction: str, references: Sequence[str], exact: Sequence[bool] = ()) -> Score:
        """The score of a prediction against what a test question says of its answer."""
        if exact and self.with_exact:
            return self.with_exact(prediction, references, exact)
        return self.score(prediction, references)

    def on_pair(self, prediction: str, answer: str) -> Score:
        """The score of a prediction against a pair's one answer."""
        return self.against_one(prediction, answer) if self.against_one else self.score(prediction, [answer])

    def lacking(self) -> str:
        """What keeps it from being used, in words; empty: nothing."""
        if self.needs_several and self.against_one is None:
            return "it needs several references, so against_one has to say how a pair's one answer is scored"
        of_one = self.against_one and fault_of_function("against_one", self.against_one, "prediction", "answer")
        exact = self.with_exact and fault_of_function(
            "with_exact", self.with_exact, "prediction", "references", "exact"
        )
        return fault_of_function("score", self.score, "prediction", "references") or of_one or exact or ""


if TYPE_CHECKING:  # it imports NumPy, which the command line does not need
    from parityalign.core.signals import Observation

RATIONALE_PROMPT = (
    "Explain in one short sentence how the image shows the answer, then answer using a single word or phrase.\n"
    "Reply in this form only. Explanation: <your explanation> Answer: <your answer>"
)
"""Asks any model for a rationale, then for its answer. The bundled models were trained on this prompt."""


Progress = Callable[[str, int, int], None]
"""(step, items done, items in total); called often, must be cheap."""


@runtime_checkable
class Says(Protocol):
    """What a `Progress` may also have: it tells sentences, and asks whoever is watching."""

    def say(self, text: str) -> None:
        """Tells a line."""

    def confirm(self, question: str) -> bool:
        """Whether to go on; where nobody can answer, yes."""


@runtime_checkable
class Details(Protocol):
    """What a `Progress` may also have: it shows beside a step how fast it goes."""

    def detail(self, step: str, text: str) -> None:
        """Shows a text beside a step's progress, in place of the one before."""


HELD_OUT_LOSS, TRAINING_LOSS = "held-out loss", "training loss"
LEARNING_RATE, EXAMPLES_A_SECOND, GPU_BUSY = "learning rate", "examples a second", "GPU busy, %"
"""What is measured of a training, each by optimiser step."""


@runtime_checkable
class Measures(Protocol):
    """What a `Progress` may also have: it takes what training measures."""

    def measured(self, what: str, step: int, value: float) -> None:
        """Takes a value after so many optimiser steps."""


@dataclass(frozen=True)
class Found:
    """An image that a source offers, not yet read."""

    name: str
    """Its location for messages: a path, or the path of a shard and the position in it."""
    read: Callable[[], bytes]
    """Reads its bytes.

    Raises:
        Unfit: It cannot be read; the error says why."""
    path: Path | None = None
    """Its own file. None: it is stored inside another file."""
    of_pairs: bool = False
    """Whether its source is a file of pairs."""


@dataclass(frozen=True)
class Source:
    """Where unlabelled images come from: what the `open` of a `SourceKind` makes."""

    where: str
    """The location as configured, with full paths."""
    digest: Callable[[], str]
    """A fingerprint that changes when an image is added, removed or changed; opens no image."""
    count: Callable[[], int | None]
    """How many images there are; None for a stream of unknown length."""
    images: Callable[[], Iterator[Found]]
    """The images one by one, always in the same order."""
    holds_files: bool = True
    """Whether each image is its own file; images stored in other files are written into the run."""
    of_pairs: bool = False
    """Whether it is a file of pairs with the images that they name: the teacher writes no pairs about these."""


@dataclass(frozen=True)
class SourceKind:
    """A kind of place where images lie. One file in `data/sources/` defines one, as `SOURCE`."""

    open: Callable[[str], Source]
    """(location) -> Source. The location is a full path or pattern where it is no name."""
    by_name: bool = False
    """Whether a location may be a name, such as that of a data set, which is not looked for on this machine; what
    begins with `.`, `/` or `~`, or is there, is a path all the same."""

    def lacking(self) -> str:
        """What keeps it from being used, in words; empty: nothing."""
        return fault_of_function("open", self.open, "location")


@dataclass(frozen=True)
class Skill:
    """Prompts and the metric of answers. Each file in `tasks/skills/` defines one, as `SKILL`."""

    name: str
    annotate_prompt: str
    """Asks for one question and its answer, in the form that `parsing.read_pair` reads."""
    answer_prompt: str
    """A format string with `{question}`; the same in identify, level and evaluate."""
    metric: Metric
    """For the scores, and for identify with `rule: metric`."""
    rationale_prompt: str = "{question}\n" + RATIONALE_PROMPT
    """A format string with `{question}`; asks for the rationale first, in the form that
    `parsing.read_rationale` reads."""
    kinds: tuple[str, ...] = ()
    """Kinds of questions in a few words each; each draw asks for one of them, which replaces `{kind}` in the
    annotate prompt."""

    def lacking(self) -> str:
        """Why it cannot be used, in words; empty if it can."""
        if not isinstance(self.metric, Metric):
            return f"metric has to be a Metric, such as find_metric('anls') returns, but is {self.metric!r}"
        if not isinstance(self.annotate_prompt, str):
            return f"annotate_prompt has to be a text, but is {self.annotate_prompt!r}"
        for prompt in ("answer_prompt", "rationale_prompt"):
            fault = fault_of_answer_prompt(getattr(self, prompt))
            if fault:
                return f"{prompt} {fault}"
        return self.metric.lacking()


@dataclass(frozen=True)
class Benchmark:
    """Reads a published test split. Each file in `tasks/benchmarks/` defines one, as `BENCHMARK`."""

    name: str
    skill: str
    """The skill that it measures: the default skill of a run, whose metric scores the split."""
    read_test: Callable[[Path], list[Question]]
    """Reads the labelled test split from a folder that holds the benchmark's files as released.

    A question has the path of its image, whether or not that exists, and no answers where the file has none."""
    read_row: Callable[[Row], Question] | None = None
    """Reads a row of the benchmark's Hugging Face copies; the question's image is the row's own name for it."""
    splits: tuple[str, ...] = ()
    """Names of the labelled split in those copies, the preferred one first."""
    configs: tuple[str, ...] = ()
    """Names of its configuration in those copies that hold several data sets, the preferred one first."""
    annotators: int | None = None
    """Number of answers that every question has; None: any number."""
    subsets: Mapping[str, Callable[[Question], bool]] = field(default_factory=dict)
    """The subsets to choose from, each with the test of a question's membership; the first is the default."""
    questions: int | None = None
    """Approximate size of the default subset, for plans that do not read the split. None: unknown."""

    def lacking(self) -> str:
        """Why it cannot be used, in words; empty if it can."""
        if not has_part("skills", self.skill):
            return f"there is no skill {self.skill!r}. {did_you_mean(self.skill, part_names('skills'))}"
        return fault_of_function("read_test", self.read_test, "folder")


@dataclass(frozen=True)
class Task:
    """A named task of a run: a skill, and the benchmark whose files its test split may have."""

    name: str
    metric: Metric
    """For the scores, and for identify with `rule: metric`."""
    annotate_prompt: str
    """Asks for one question and its answer, in the form that `parsing.read_pair` reads."""
    answer_prompt: str
    """A format string with `{question}`; the same in identify, level and evaluate."""
    rationale_prompt: str = "{question}\n" + RATIONALE_PROMPT
    """A format string with `{question}`; asks for the rationale first, in the form that
    `parsing.read_rationale` reads."""
    benchmark: Benchmark | None = None
    """None: the test split, if there is one, is the user's own file."""
    kinds: tuple[str, ...] = ()
    """As in `Skill`; if there are any, the annotate prompt holds `{kind}`."""

    @property
    def annotate_digest(self) -> str:
        """Equal for tasks that ask for pairs in the same words."""
        return content_id(self.annotate_prompt, *self.kinds)

    def kind_of(self, seed: int) -> str:
        """The kind of question that a draw with this seed is asked for, by itself; empty where there are none."""
        return self.kinds[seed % len(self.kinds)] if self.kinds else ""

    def kinds_in_turn(self, image_id: str, seed: int) -> list[str]:
        """All kinds in an order of the image's own, drawn by the run's seed."""
        return sorted(self.kinds, key=lambda kind: content_id(image_id, self.name, kind, str(seed)))

    def annotate_prompt_for(self, kind: str) -> str:
        """The annotate prompt of a draw that asks for this kind of question."""
        return self.annotate_prompt.replace(KIND_FIELD, kind) if self.kinds else self.annotate_prompt


@dataclass(frozen=True)
class Decoding:
    """How a model picks tokens."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 means greedy."""
    top_p: float = 1.0
    """A draw is among the likeliest tokens that have this probability together; 1: among all."""
    top_k: int | None = None
    """A draw is among so many likeliest tokens; None: among all."""
    pair: bool = False
    """Whether a question with its answer is asked for, so that a server may be held to that form."""


@dataclass(frozen=True)
class Request:
    """One image, or none, and one prompt for a model."""

    image: str
    """Path of the image file; empty for a question without a picture, which is asked apart from others."""
    prompt: str
    seed: int = 0
    """Seeds the draw if the temperature is above 0; the same request gives the same text in any batch."""


class Model(Protocol):
    """Generates text from images: made by the `load` of a `Backend`, or by `engines` from a `Remote`."""

    @property
    def name(self) -> str:
        """The model's location as configured (`embedded:teacher`, `hf:./folder`)."""

    @property
    def special_tokens(self) -> frozenset[str]:
        """Texts that the model's processor would not read as plain text, such as an image placeholder."""

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order, with the special tokens that the model itself wrote."""


@runtime_checkable
class Described(Protocol):
    """What a `Model` may also have if it runs in a process of ours: how it does."""

    facts: Mapping[str, str]
    """What its outputs depend on besides its files, such as the precision; for manifests."""


@runtime_checkable
class Closes(Protocol):
    """What a `Model` may also have: something to give up when it is no longer asked, such as work ahead."""

    def close(self) -> None:
        """Gives it up; the model may be asked again all the same."""


@runtime_checkable
class Scoring(Protocol):
    """What a `Model` may also have: it tells how likely its replies are to it."""

    def generate_scored(self, requests: Sequence[Request], decoding: Decoding) -> list[tuple[str, float]]:
        """The reply to each request, in order, with its natural log-probability, summed over its tokens.

        That is the model's own, before temperature, `top_p` and `top_k`."""


@runtime_checkable
class Observer(Protocol):
    """A model whose log-probabilities and attention can be read, as of most models in this process."""

    @property
    def special_tokens(self) -> frozenset[str]:
        """As in `Model`."""

    def observe(self, told: Sequence[tuple[Request, str]]) -> "list[Observation | None]":
        """Scores each request teacher-forced: followed by the given text as if it were the model's own reply.

        None where a text cannot be scored. The arrays hold the end token too."""


@runtime_checkable
class Local(Protocol):
    """What a `Model` also has if it runs in this process, so that its memory can be measured."""

    def parameters(self) -> int:
        """Number of parameters."""

    def fits_twice(self) -> bool:
        """Whether there is memory left for another model of its size."""

    def peak_bytes(self, work: Callable[[], object]) -> int | None:
        """Does the work and returns the peak memory of the model meanwhile, weights included.

        None where the machine does not report it."""


@runtime_checkable
class LooksAhead(Protocol):
    """What a `Model` may also have: it prepares the next requests while it works on the current ones."""

    def expect(self, requests: Sequence[Request]) -> None:
        """Announces the requests after the next call of `generate`. It does not change any reply."""


@dataclass(frozen=True)
class LevelResult:
    """What training did, for the manifest and the report."""

    steps: int
    best_step: int
    held_out_loss_before: float
    held_out_loss_after: float
    skipped_steps: int = 0
    micro_batch_tokens: int | None = None
    """Fewest tokens that micro-batches were cut to since memory ran out. None: it never did."""
    interpolation: float = 1.0
    """alpha: 0 is at the student's weights, 1 at the best step's."""


class Leveller(Protocol):
    """Fine-tunes the student on pairs and saves an ordinary Hugging Face folder."""

    def __call__(self, pairs: Sequence[Pair], held_out: Sequence[Pair], out: Path) -> LevelResult:
        """Trains on `pairs`, stops early by the loss on `held_out`, saves the best student to `out`."""


@dataclass(frozen=True)
class ExportedPair:
    """A pair with its verdict, for export: none of its texts holds a tag such as `<image>`."""

    pair: Pair
    verdict: Verdict
    asked: str
    """The text of the user's turn: the question, bare or within the task's answer prompt."""


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
    place: int = 0
    """The question's place among those of its task that are scored."""


@dataclass(frozen=True)
class Origin:
    """Where a run's pairs come from, for readers without the run. Local things by name, not by path."""

    teacher: str
    student: str
    seed: int
    judged_by: str
    """The rule of identify, in words."""
    exported: str
    """`gaps` or `all`."""
    sources: Mapping[str, str]
    """By task: where its images came from."""
    annotate_prompts: Mapping[str, str]
    answer_prompts: Mapping[str, str]
    pairs: int
    verdicts: Mapping[str, Mapping[str, int]]
    """By task: how many pairs have which verdict, gaps or not."""
    checked: str = ""
    """How many pairs came in with files, and what a person did to them, in sentences."""


class Exportable(Protocol):
    """What a run offers to other tools; read lazily, row by row."""

    def origin(self) -> Origin:
        """Where the pairs come from."""

    def judged(self) -> Iterator[ExportedPair]:
        """The pairs to export, gaps or all, in the order of the run."""

    def picture(self, pair: Pair, folder: Path) -> str:
        """How a row names its pair's picture: a path in the export's folder, where a copy is put, or the file's own."""

    def scored(self) -> Iterator[Scored]:
        """All answers to the test splits, model by model."""


@dataclass(frozen=True)
class ExportFormat:
    """A form that other tools read. One file in `export/formats/` defines one, as `EXPORT`."""

    write: Callable[[Exportable, Path], Mapping[str, int]]
    """(run, an empty folder) -> what was written there, counted."""
    of: tuple[str, ...]
    """The artifacts that it is made of, by their folder: they have to be finished and up to date."""
    on_hub: bool = False
    """Whether its folder is a data set as the hub shows them, so that it can be pushed."""
    copies_pictures: bool = True
    """Whether pictures lie beside its rows (`Exportable.picture`), so that they can stay where they lie instead."""

    def lacking(self) -> str:
        """What keeps it from being used, in words; empty: nothing."""
        if not isinstance(self.of, tuple):
            return f"of has to be a tuple of artifacts, such as ('pairs', 'verdicts'), and is {self.of!r}"
        return fault_of_function("write", self.write, "run", "folder")
