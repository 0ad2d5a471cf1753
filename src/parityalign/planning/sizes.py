"""What a plan has to know of a model: how many numbers it holds and how many tokens it makes of a picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self


@dataclass(frozen=True)
class Stack:
    """A stack of transformer layers: the language model, or the vision tower."""

    parameters: int
    """Those that every token is multiplied with."""
    layers: int
    hidden: int
    intermediate: int


@dataclass(frozen=True)
class Size:
    """A vision-language model as a plan sees it."""

    parameters: int
    """All of them."""
    language: Stack
    """Without embeddings and output head."""
    vision: Stack
    """With the connector."""
    head: int
    """Of the output head, which only tokens go through that are written or learnt."""
    vocabulary: int
    cached: int
    """Numbers that the language model keeps of each token (keys and values of all layers)."""
    adapter: int
    """Parameters that low-rank adapters of rank 1 would add: linear layers' inputs and outputs, without the head."""
    adapted: int
    """Parameters in those linear layers, which are also what quantised loading shrinks."""
    origin: str
    """Where the configuration was read, in words."""


class Seen(NamedTuple):
    """What a model makes of a picture and a prompt, on average over a sample."""

    tokens: float
    """Of the prompt, the picture's placeholders among them."""
    patches: float
    """That go through the vision tower."""


class Prompts(NamedTuple):
    """What a model is asked in one task, with a question where the prompt has one."""

    annotate: str
    """Asks for a pair."""
    answer: str
    rationale: str
    """Asks for a rationale before the answer."""


@dataclass(frozen=True)
class Reading:
    """How a model reads the prompts of one task."""

    annotate: Seen
    answer: Seen
    rationale: Seen
    pictures: int
    """How many pictures this is the average of."""
    assumed: str = ""
    """How tokens were estimated, in words; empty where the model's own processor counted."""

    @classmethod
    def of(cls, prompts: Prompts, seen: Callable[[str], Seen], pictures: int, assumed: str = "") -> Self:
        """What `seen` makes of each prompt."""
        annotate, answer, rationale = map(seen, prompts)
        return cls(annotate, answer, rationale, pictures, assumed)


class Pace(NamedTuple):
    """Seconds that a model takes for one request, measured on this machine."""

    annotate: float
    answer: float
    rationale: float
    """0 where no rationales are asked for."""
    read: float
    """For reading the prompt alone: a forward pass."""
    requests: int
    """How many were measured of each."""


@dataclass(frozen=True)
class Known:
    """What is known of one of a run's models before it is loaded."""

    readings: Mapping[str, Reading]
    """By task."""
    origin: str
    """Where the rest comes from, in words."""
    size: Size | None = None
    """None: nothing but its name is known."""
    pace: Pace | None = None
    """None: it was not measured."""
    served: bool = False
