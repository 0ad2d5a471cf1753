"""The configuration of a run: typed and frozen; `runfile.py` reads and writes it."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from parityalign.errors import UserError
from parityalign.loading import Loadings
from parityalign.loading import LoadingSettings as LoadingSettings
from parityalign.loading import Settings as Settings
from parityalign.matching import METRICS
from parityalign.plugins import has, load_task, names, near, split_model
from parityalign.rates import PartRates


def _known(room: str, word: str) -> Callable[[str], str]:
    """A check that a room has a part of the given name."""

    def check(name: str) -> str:
        if not has(room, name):
            raise ValueError(f"there is no {word} {name!r}. {near(name, names(room))}")
        return name

    return check


def _known_model(spec: str) -> str:
    try:
        split_model(spec)
    except UserError as problem:
        raise ValueError(str(problem)) from problem
    return spec


def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"there is no metric {name!r}. {near(name, list(METRICS))}")
    return name


def _variable(name: str) -> str:
    # What is refused is not shown: it may be the key itself.
    if not re.fullmatch("[A-Z][A-Z0-9_]*", name):
        raise ValueError("is no name of an environment variable (capitals, digits, underscores); a key belongs in one")
    return name


def listed(said: object) -> Sequence[Any]:
    """One or a list of things, as a list."""
    return said if isinstance(said, list | tuple) else [said]


def unlisted(several: tuple[str, ...]) -> object:
    """The other way round."""
    return several[0] if len(several) == 1 else list(several)


class TaskData(Settings):
    """Where the pictures of one task are."""

    images: Annotated[tuple[str, ...], BeforeValidator(listed), PlainSerializer(unlisted), Field(min_length=1)]
    """Unlabelled images, one source or a list of them: a folder (those below it are read too), a `.txt` or `.jsonl`
    file that names images, Parquet files or tar shards (patterns are allowed), or `hf:OWNER/NAME[:SPLIT]`."""
    test: str | None = None
    """Labelled questions: a folder with the benchmark's files as released or with Parquet files, a `.jsonl` file, or
    `hf:OWNER/NAME[:SPLIT]`. None: no labels, no scores."""
    metric: Annotated[str, AfterValidator(_known_metric)] | None = None
    """A function of `matching.py`, for the scores and for identify. None: the task's own."""
    subset: str | None = None
    """The part of the test split that is scored, such as ChartQA's `human`. None: the task's default."""
    missing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the test split's questions that may lack their image or answers; above it the run refuses."""


class IntakeSettings(Settings):
    """Which sound images are set aside all the same."""

    near_duplicates: bool = True
    """Whether an image goes that is another of its pool saved again: re-encoded or resized. Equal bytes or pixels
    always go."""
    overlap_guard: bool = True
    """Whether images that stand in a test split of the run, as they are or saved again, leave every pool."""


class AnnotateSettings(Settings):
    """How the teacher writes pairs."""

    pairs_per_image: int = Field(default=1, ge=1)
    """Draws for each image; repeats of the same pair are dropped."""
    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy: the same pair on every draw."""
    max_new_tokens: int = Field(default=96, ge=1)
    batch_size: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _draws_differ(self) -> Self:
        if self.temperature == 0 and self.pairs_per_image > 1:
            raise ValueError(
                f"pairs_per_image is {self.pairs_per_image}, but at temperature 0 every draw writes the same "
                "pair. Set one pair per image, or a temperature above 0"
            )
        return self


class IdentifySettings(Settings):
    """How gaps are told from other pairs."""

    rule: Literal["metric", "paper"] = "metric"
    """`metric`: the task's own metric reaches the threshold; `paper`: squeezed substring."""
    ask_teacher: Literal["failures", "all"] = "failures"
    """Whether the teacher answers again only where the student failed, or everywhere."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Score from which an answer counts as right."""
    max_new_tokens: int = Field(default=32, ge=1)
    batch_size: int = Field(default=128, ge=1)


class EvidenceSettings(Settings):
    """What both models show of themselves while they are given the pairs' answers, for the discrepancy objectives."""

    always: bool = False
    """Whether it is gathered even if no objective needs it, for `parityalign profile`."""
    explain: bool = False
    """Whether the teacher is asked how it gets to each answer."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Of an explanation."""
    batch_size: int = Field(default=128, ge=1)
    weight_by: Literal["none", "teacher_confidence", "confidence_gap"] = "none"
    """What a pair's weight in levelling follows; see `profiles.pair_weights`."""
    weight_exponent: float = Field(default=1.0, gt=0)


Weight = Annotated[float, Field(ge=0)] | tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
DISCREPANCY: Mapping[str, float] = MappingProxyType({"answer": 1.0, "confidence": 1.0})
"""What `objective: discrepancy` stands for; why: docs/results-objectives.md."""


class LevelSettings(Settings):
    """How the student is trained on the gaps."""

    objective: (
        Annotated[str, AfterValidator(_known("objectives", "objective"))]
        | dict[Annotated[str, AfterValidator(_known("objectives", "objective"))], Weight]
    ) = "answer"
    """A file in `objectives/`, or several with their weights, such as `{answer: 1, confidence: [1, 0.5]}`: from 1 in
    the beginning to 0.5 at the end. `discrepancy` stands for the weights that were found to be best."""
    divergence: Literal["forward", "reverse", "jensen_shannon"] = "forward"
    """How `confidence` compares the student's next token with the teacher's."""
    method: Literal["full", "lora", "qlora"] = "full"
    """All weights, or small matrices beside the linear layers that are merged in the end; `qlora`: on 4-bit weights."""
    parts: PartRates = PartRates()
    epochs: int = Field(default=3, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps in all, instead of `epochs`: fewer or more."""
    learning_rate: float = Field(default=2e-4, gt=0)
    batch_size: int = Field(default=64, ge=1)
    """Pairs in an optimiser step, however many of them fit into memory."""
    rows_at_once: int | None = Field(default=None, ge=1)
    """Pairs of a step that go through the model together. None: all; halved whenever memory runs out."""
    gradient_checkpointing: bool = False
    """Less memory for about a third more time: what the layers computed is not kept but computed again."""
    liger: bool = True
    """Whether the fused kernels of the package liger-kernel are used where it and a GPU are there."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    replay: float = Field(default=0.5, ge=0, lt=1)
    """Share of the training pairs that the student already had right; 0 is the paper's way."""
    held_out: float = Field(default=0.05, gt=0, lt=1)
    """Share of the pairs kept out of training, for early stopping."""
    patience: int = Field(default=3, ge=1)
    """Looks at the held-out loss without a new best after which training stops."""
    skipped_steps: int = Field(default=100, ge=1)
    """Steps whose loss or gradient is not finite, and which change nothing, after which training stops."""
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: float | None = Field(default=None, gt=0)
    """Weight of what LoRA learns, divided by the rank. None: twice the rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    select: Literal["gaps", "all", "random"] = "gaps"
    """What is trained on besides replay: the gaps, all pairs, or as many pairs as gaps, drawn at random."""

    @property
    def weights(self) -> dict[str, tuple[float, float]]:
        """The weight of each term of the objective, in the beginning and at the end."""
        named: Mapping[str, object] = {self.objective: 1.0} if isinstance(self.objective, str) else self.objective
        given = DISCREPANCY if self.objective == "discrepancy" else named
        ends = {name: weight if isinstance(weight, tuple) else (weight, weight) for name, weight in given.items()}
        return {name: pair for name, pair in ends.items() if any(pair)}

    @property
    def needs_evidence(self) -> bool:
        """Whether a term compares the student with what the teacher showed."""
        return not self.weights.keys() <= {"answer", "consistency"}


class EvaluateSettings(Settings):
    """How the models are scored on the test splits."""

    limit: int | None = Field(default=None, ge=1)
    """Questions per task, the first of a seeded order; None: all."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of the images."""
    max_new_tokens: int = Field(default=32, ge=1)
    batch_size: int = Field(default=128, ge=1)
    forgotten_pairs: int = Field(default=1000, ge=0)
    """Pairs at most that the student had right and was not trained on, and is asked again after levelling; 0: none."""
    speed_questions: int = Field(default=128, ge=0)
    """Questions at most that the student before and after are timed on, in turns; 0: neither is timed."""


class ServerSettings(Settings):
    """How models behind a server (`http://...`) are asked, and what may be spent on them. No result hangs on these."""

    key_variable: Annotated[str, AfterValidator(_variable)] = "PARITYALIGN_API_KEY"
    """Environment variable that holds the key, never the key itself; unset: the server is asked without one."""
    in_flight: int = Field(default=16, ge=1)
    """Requests that wait for their answers at once."""
    deadline: float = Field(default=120.0, gt=0)
    """Seconds after which a request without its whole answer is given up and sent again."""
    attempts: int = Field(default=8, ge=1)
    """Requests for one question after which the stage stops."""
    wait: float = Field(default=1.0, gt=0)
    """Seconds before the second attempt, doubled for each one after it; a server's Retry-After goes first."""
    budget_requests: int | None = Field(default=None, ge=1)
    """Requests in the whole run, repeated and refused ones too; None: no limit. So for the two below."""
    budget_tokens: int | None = Field(default=None, ge=1)
    budget_money: float | None = Field(default=None, gt=0)
    """In the currency of the prices."""
    prompt_price: float = Field(default=0.0, ge=0)
    """Of a million tokens."""
    completion_price: float = Field(default=0.0, ge=0)
    logprobs: bool = False
    """Whether the log-probability of every reply is asked for and kept."""

    @model_validator(mode="after")
    def _money_has_prices(self) -> Self:
        if self.budget_money is not None and not self.prompt_price + self.completion_price:
            raise ValueError(
                f"budget_money is {self.budget_money}, but no price is given. Set prompt_price and completion_price"
            )
        return self


class RunConfig(Settings):
    """Everything that decides what a run makes."""

    run: Path
    """The run folder."""
    seed: int = Field(default=0, ge=0)
    teacher: Annotated[str, AfterValidator(_known_model)]
    """KIND:LOCATION, such as `embedded:teacher` or `hf:./folder`, or `http://HOST:PORT/v1#NAME`."""
    student: Annotated[str, AfterValidator(_known_model)]
    tasks: dict[Annotated[str, AfterValidator(_known("tasks", "task"))], TaskData] = Field(min_length=1)
    loading: Loadings = Loadings()
    intake: IntakeSettings = IntakeSettings()
    annotate: AnnotateSettings = AnnotateSettings()
    identify: IdentifySettings = IdentifySettings()
    evidence: EvidenceSettings = EvidenceSettings()
    level: LevelSettings = LevelSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    server: ServerSettings = ServerSettings()

    @property
    def wants_evidence(self) -> bool:
        """Whether both models are observed."""
        return self.evidence.always or self.level.needs_evidence

    @model_validator(mode="after")
    def _reasoning_is_explained(self) -> Self:
        if "reasoning" in self.level.weights and not self.evidence.explain:
            raise ValueError("level.objective has the term 'reasoning', which needs evidence.explain: true")
        return self

    @field_validator("tasks")
    @classmethod
    def _known_subsets(cls, tasks: dict[str, TaskData]) -> dict[str, TaskData]:
        for name, data in tasks.items():
            known = list(load_task(name).subsets)
            if data.subset is not None and data.subset not in known:
                raise ValueError(f"{name} has no subset {data.subset!r}. {near(data.subset, known)}")
        return tasks
