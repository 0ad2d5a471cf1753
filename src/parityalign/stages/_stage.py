"""What a stage is, and what it may ask of the run that it works for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from parityalign.config import RunConfig
from parityalign.core import (
    Artifact,
    Judged,
    Leveller,
    Model,
    Pair,
    Progress,
    Question,
    Source,
    Task,
    fault_of_function,
)

_NOTHING: Mapping[str, object] = MappingProxyType({})


class StageRun(Protocol):
    """A run, as its stages see it."""

    config: RunConfig
    progress: Progress
    tasks: Mapping[str, Task]
    """By name, in the order of the configuration."""

    @property
    def pools(self) -> Mapping[str, Sequence[Source]]:
        """Where the unlabelled images of each task come from."""

    @property
    def tests(self) -> Mapping[str, Sequence[Question]]:
        """The labelled questions of each task that has a test split."""

    @property
    def left_out(self) -> Mapping[str, Mapping[str, int]]:
        """How many questions of each test split cannot be scored, by reason."""

    def artifact(self, name: str) -> Artifact:
        """The finished artifact of a stage before this one."""

    @property
    def pairs(self) -> Sequence[Pair]:
        """All pairs that the teacher wrote."""

    @property
    def judged(self) -> Sequence[Judged]:
        """All pairs with their verdicts."""

    def load_teacher(self) -> Model:
        """Loads the teacher."""

    def load_student(self) -> Model:
        """Loads the student as it was before levelling."""

    def load_levelled(self) -> Model:
        """Loads the student as levelling left it."""

    def leveller(self, artifact: Artifact) -> Leveller:
        """What trains the run's student; notes in the artifact which terms of the loss there is nothing for."""

    def holds(self, artifact: str, chosen: Mapping[str, object]) -> bool:
        """Whether a stage's artifact is there, finished and current with these settings in place of those it has."""


class PlannedAmounts(NamedTuple):
    """How much there will be of one task, as far as a plan knows."""

    images: int
    pairs: int
    gaps: int
    questions: int
    """Of the test split."""


class PlannedRequests(NamedTuple):
    """Questions that a stage will ask of one model, about as long as those of pairs."""

    role: Literal["teacher", "student"]
    requests: Mapping[str, int]
    """By task."""
    reply_tokens: int
    """Of each reply."""


@dataclass(frozen=True)
class Stage:
    """One step of a run. It makes one artifact, and is done again when what that hangs on has changed."""

    name: str
    """Unique among the stages; messages and events name it."""
    artifact: str
    """The folder that it makes, below the run folder."""
    of: tuple[str, ...]
    """What it is made of: artifacts of earlier stages by their folder, and `pools`, `tests`, `teacher model`,
    `student model`, `annotate prompt`, `answer prompt`, `rationale prompt`, `metric`."""
    settings: tuple[str, ...]
    """The settings that it hangs on: sections (`annotate`) or single ones (`level.replay`, `seed`)."""
    work: Callable[[StageRun, Artifact], None]
    """Makes the artifact and finishes it. Not called when it is up to date."""
    help: str
    """What it does, in one sentence."""
    command: str = ""
    """The command that does it, where that is not its name: one command may do several stages."""
    wanted: Callable[[RunConfig], bool] = lambda config: True
    """Whether a run with this configuration has the stage."""
    also_of: Callable[[RunConfig], Sequence[str]] = lambda config: ()
    """What else it is made of in a run with this configuration."""
    derived: Callable[[StageRun], Mapping[str, object]] = lambda run: _NOTHING
    """Settings that it hangs on and that are no fields of the configuration, under their dotted names."""
    after: str = ""
    """For stages of other packages: the stage that it follows."""
    planned: Callable[[RunConfig, Mapping[str, PlannedAmounts]], Sequence[PlannedRequests]] | None = None
    """What it will ask, for `parityalign plan`. None: it asks no model, or the plan knows the stage."""

    @property
    def asked_by(self) -> str:
        """The command that does it."""
        return self.command or self.name

    def lacking(self) -> str:
        """What keeps it from being used, in words; empty: nothing."""
        for name in ("of", "settings"):
            if not isinstance(found := getattr(self, name), tuple):
                return f"{name} has to be a tuple of texts, and is {found!r}"
        of_plan = self.planned and fault_of_function("planned", self.planned, "config", "amounts")
        return fault_of_function("work", self.work, "run", "artifact") or of_plan or ""
