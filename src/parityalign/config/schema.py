"""The configuration of a run: typed and frozen; `runfile.py` reads and writes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from parityalign.config.backend import backend_of
from parityalign.config.base import Settings
from parityalign.config.loading import Loadings
from parityalign.config.model_specs import split_model
from parityalign.config.serving import ServerSettings
from parityalign.config.training import LevelSettings
from parityalign.core import Task, UserError, did_you_mean, known_part, load_part


def _known_model(spec: str) -> str:
    try:
        split_model(spec)
    except UserError as problem:
        raise ValueError(str(problem)) from problem
    return spec


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
    metric: Annotated[str, AfterValidator(known_part("metrics"))] | None = None
    """A file in `metrics/`, for the scores and for identify. None: the task's own."""
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
    """Whether it is gathered even if nothing else here, nor the objective, needs it, for `parityalign profile`."""
    explain: bool = False
    """Whether the teacher is asked how it gets to each answer even if no term of the objective needs that; both models
    are then observed, on the explanations too."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Of an explanation."""
    batch_size: int = Field(default=128, ge=1)
    weight_by: Literal["none", "teacher_confidence", "confidence_gap"] = "none"
    """What a pair's weight in levelling follows; see `profiles.pair_weights`."""
    weight_exponent: float = Field(default=1.0, gt=0)

    def teaches(self, level: LevelSettings) -> bool:
        """Whether such a training makes use of what the models show, for a term or for the weights of pairs."""
        return level.needs_evidence or self.weight_by != "none"


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


class RunConfig(Settings):
    """Everything that decides what a run makes."""

    run: Path
    """The run folder."""
    seed: int = Field(default=0, ge=0)
    teacher: Annotated[str, AfterValidator(_known_model)]
    """KIND:LOCATION, such as `embedded:teacher` or `hf:./folder`, or `http://HOST:PORT/v1#NAME`."""
    student: Annotated[str, AfterValidator(_known_model)]
    tasks: dict[Annotated[str, AfterValidator(known_part("tasks"))], TaskData] = Field(min_length=1)
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
        return self.evidence.always or self.evidence.explain or self.evidence.teaches(self.level)

    @property
    def wants_explanations(self) -> bool:
        """Whether the teacher is asked how it gets to its answers."""
        return self.evidence.explain or self.level.needs_explanations

    @model_validator(mode="after")
    def _teacher_shows_enough(self) -> Self:
        # `discrepancy` leaves out what there is nothing for.
        named = [] if "discrepancy" in self.level.objective else self.level.needs_observations
        wanted = [f"level.objective has the term {name!r}" for name in named]
        if self.evidence.weight_by != "none":
            wanted.append(f"evidence.weight_by is {self.evidence.weight_by}")
        if wanted and not backend_of(self.teacher).shows:
            raise ValueError(
                f"{wanted[0]}, but the teacher {self.teacher} shows nothing but its words. Leave that out, or take a "
                "teacher that runs in this process"
            )
        return self

    @field_validator("tasks")
    @classmethod
    def _known_subsets(cls, tasks: dict[str, TaskData]) -> dict[str, TaskData]:
        for name, data in tasks.items():
            known = list(load_part("tasks", name, Task).subsets)
            if data.subset is not None and data.subset not in known:
                raise ValueError(f"{name} has no subset {data.subset!r}. {did_you_mean(data.subset, known)}")
        return tasks
