"""The definition of a stage, and what a run offers it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from parityalign.config import Role, RunConfig
from parityalign.core import (
    Artifact,
    Judged,
    Leveller,
    Pair,
    Progress,
    Question,
    Source,
    Task,
    fault_of_function,
)
from parityalign.engines import CachedModel
from parityalign.stages.reviewing import Review

_NOTHING: Mapping[str, object] = MappingProxyType({})
_NOTHING_OF: Mapping[str, str] = MappingProxyType({})


class StageRun(Protocol):
    """A run, as its stages see it."""

    config: RunConfig
    progress: Progress
    tasks: Mapping[str, Task]
    """The tasks by name, in the order of the configuration."""

    @property
    def pools(self) -> Mapping[str, Sequence[Source]]:
        """The sources of unlabelled images by task."""

    @property
    def tests(self) -> Mapping[str, Sequence[Question]]:
        """The labelled questions of each task that has a test split."""

    @property
    def left_out(self) -> Mapping[str, Mapping[str, int]]:
        """How many questions of each test split cannot be scored, by reason."""

    def artifact(self, name: str) -> Artifact:
        """The finished artifact of an earlier stage."""

    @property
    def pairs(self) -> Sequence[Pair]:
        """All pairs, with a person's answers where there are some."""

    @property
    def review(self) -> Review:
        """A person's marks on the pairs."""

    @property
    def judged(self) -> Sequence[Judged]:
        """All pairs with their verdicts."""

    @property
    def teacher(self) -> CachedModel:
        """The teacher, with its answers so far."""

    @property
    def student(self) -> CachedModel:
        """The student as it was before levelling."""

    @property
    def second_teacher(self) -> CachedModel | None:
        """The model that has to agree with a gap, if there is one."""

    def trained(self, student: Artifact) -> CachedModel:
        """The student that an artifact of this run holds."""

    @property
    def levelled(self) -> CachedModel:
        """The student as levelling left it."""

    def leveller(self, artifact: Artifact) -> Leveller:
        """Trains the run's student; records in the artifact which terms of the loss have no teacher signals."""

    def holds(self, artifact: str, chosen: Mapping[str, object], parts: Mapping[str, str]) -> bool:
        """Whether a stage's artifact exists, is finished and is up to date with these settings and parts of inputs."""


class PlannedAmounts(NamedTuple):
    """Estimated counts of one task, for a plan."""

    images: int
    pairs: int
    gaps: int
    questions: int
    """Questions of the test split."""


class PlannedRequests(NamedTuple):
    """Questions that a stage will ask one model, of about the length of pairs' questions."""

    role: Role
    requests: Mapping[str, int]
    """Questions by task."""
    reply_tokens: int
    """Tokens of each reply."""


@dataclass(frozen=True)
class Stage:
    """One step of a run. It makes one artifact, which is redone when its inputs or settings change."""

    name: str
    """Unique among the stages; used in messages and events."""
    artifact: str
    """The folder of its artifact in the run folder."""
    of: tuple[str, ...]
    """Its inputs: artifacts of earlier stages by their folder, and `pools`, `tests`, `own pairs`, `review marks`,
    `teacher model`, `student model`, `annotate prompt`, `answer prompt`, `rationale prompt`, `metric`."""
    settings: tuple[str, ...]
    """The settings that it depends on: sections (`annotate`) or single ones (`level.replay`, `seed`)."""
    work: Callable[[StageRun, Artifact], None]
    """Makes and finishes the artifact. Not called if it is up to date."""
    help: str
    """What it does, in one sentence."""
    command: str = ""
    """The command that does it, if not its name: one command may do several stages."""
    wanted: Callable[[RunConfig], bool] = lambda config: True
    """Whether a run with this configuration has the stage."""
    also_of: Callable[[RunConfig], Sequence[str]] = lambda config: ()
    """Further inputs in a run with this configuration."""
    derived: Callable[[StageRun], Mapping[str, object]] = lambda run: _NOTHING
    """Further settings that it depends on, which are not fields of the configuration, by dotted name."""
    parts: Callable[[StageRun], Mapping[str, str]] = lambda run: _NOTHING_OF
    """For artifacts in `of` of which only a part matters: the digest of that part, by artifact. A change elsewhere in
    them does not redo the stage."""
    derives: bool = False
    """Whether its work, but for the questions that it asks, is quick and touches nothing but its artifact, so that a
    dry run can do it in a folder of its own."""
    at_most: Callable[[StageRun], int] = lambda run: 0
    """For a dry run: how many questions it asks at most, where the stages before it are not done yet."""
    after: str = ""
    """For stages of other packages: the stage before it."""
    planned: Callable[[RunConfig, Mapping[str, PlannedAmounts]], Sequence[PlannedRequests]] | None = None
    """What it will ask, for `parityalign plan`. None: it asks no model, or the plan knows the stage already."""

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
