"""What a plan needs to know about a model: its parameters, and its tokens per picture."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple, Self

from parityalign.config import StudentFacts
from parityalign.training import Pace


@dataclass(frozen=True)
class Stack:
    """A stack of transformer layers: the language model, or the vision tower."""

    parameters: int
    """Parameters that every token is multiplied with."""
    layers: int
    hidden: int
    intermediate: int


@dataclass(frozen=True)
class Size:
    """The size of a vision-language model."""

    parameters: int
    """All parameters."""
    language: Stack
    """The language model, without embeddings and output head."""
    vision: Stack
    """The vision tower, with the connector."""
    head: int
    """Parameters of the output head, which only generated or trained tokens pass."""
    vocabulary: int
    cached: int
    """Numbers in the cache per token (keys and values of all layers)."""
    adapter: int
    """Parameters of adapters of rank 1: inputs plus outputs of all linear layers, without the head."""
    adapted: int
    """Parameters in those linear layers, which are also those in 8 bits."""
    quantised: int
    """Of these the ones in the language model, which are those in 4 bits."""
    tower_adapter: int
    """Parameters of adapters of rank 1 in the vision tower."""
    origin: str
    """Where the configuration was read, as text."""
    parts_known: bool = True
    """Whether vision tower, connector and language model can be told apart."""

    @property
    def facts(self) -> StudentFacts:
        """What decides how it is trained, if it is the student."""
        return StudentFacts(self.parameters, self.parts_known)


class PromptSize(NamedTuple):
    """What a model makes of a picture and a prompt, on average over a sample."""

    tokens: float
    """Tokens of the prompt, including the picture's."""
    patches: float
    """Patches in the vision tower."""


class Prompts(NamedTuple):
    """The prompts of one task, with a question filled in."""

    annotate: str
    """Asks for a pair."""
    answer: str
    rationale: str
    """Asks for a rationale before the answer."""


class Preparation(NamedTuple):
    """What a model's input of a picture takes; 0: not known."""

    seconds: float = 0.0
    """Of CPU, to read and prepare it, measured on this machine."""
    memory_bytes: float = 0.0
    file_bytes: float = 0.0
    """0 also where no file is written."""
    feature_bytes: float = 0.0
    """Of what the language model is shown of it, in single precision."""


UNKNOWN = Preparation()


def mean_of(preparations: Iterable[Preparation]) -> Preparation:
    """What a picture takes on average."""
    return Preparation(*map(mean, zip(*preparations, strict=True)))


@dataclass(frozen=True)
class PromptSizes:
    """How a model reads the prompts of one task."""

    annotate: PromptSize
    answer: PromptSize
    rationale: PromptSize
    pictures: int
    """Number of pictures in the mean."""
    assumed: str = ""
    """How tokens were estimated, as text; empty if counted by the model's own processor."""
    preparation: Preparation = UNKNOWN
    """On average."""

    @classmethod
    def of(
        cls,
        prompts: Prompts,
        seen: Callable[[str], PromptSize],
        pictures: int,
        assumed: str = "",
        preparation: Preparation = UNKNOWN,
    ) -> Self:
        """What `seen` makes of each prompt."""
        annotate, answer, rationale = map(seen, prompts)
        return cls(annotate, answer, rationale, pictures, assumed, preparation)


class Throughput(NamedTuple):
    """Seconds that a model takes for one request, measured on this machine."""

    answer: float
    """About a pair, with others about its picture."""
    test: float
    """About a question of a test split."""
    read: float
    """For processing the prompt alone: a forward pass."""
    pairs: int
    """Number of pairs that it was asked."""
    annotate: float = 0.0
    """Of a teacher."""
    rationale: float = 0.0
    """Of a teacher; 0 if no rationales are asked for."""
    memory: float | None = None
    """The most bytes that were held while it was asked; None: that cannot be measured here."""
    training: Pace | None = None
    """Of a student."""
    not_trained: str = ""
    """Why there is none."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of one of a run's models before it is loaded."""

    prompt_sizes: Mapping[str, PromptSizes]
    """By task."""
    origin: str
    """The source of the other facts, as text."""
    size: Size | None = None
    """None: nothing but its name is known."""
    throughput: Throughput | None = None
    """None: it was not measured."""
    served: bool = False

    @property
    def preparation(self) -> Preparation:
        """What a picture takes on this machine, on average over the tasks; unknown for a served model."""
        return UNKNOWN if self.served else mean_of(sizes.preparation for sizes in self.prompt_sizes.values())
