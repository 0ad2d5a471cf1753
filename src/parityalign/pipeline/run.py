"""What the pipeline needs around the stages: a run's parts found by name, its artifacts with what they hang on."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from parityalign.config import RunConfig, Settings, TaskData, speed_only
from parityalign.core import (
    CONFIG,
    CONTROLS,
    REPORT,
    SCORES,
    SERVER,
    TESTS,
    Artifact,
    Model,
    Progress,
    Question,
    RunFolder,
    Source,
    Task,
    UserError,
    content_id,
)
from parityalign.data import keep_split, kept_left_out, kept_questions, open_source, split_state
from parityalign.metrics import find_metric as find_metric
from parityalign.pipeline.run_models import RunModels
from parityalign.tasks import task_of

_IN_SCORES = frozenset({"evaluate.resamples"})
"""Settings that matter to the scores only, which are computed anew from the answers."""
_IN_CHECKUP = frozenset({"evaluate.forgotten_pairs", "evaluate.speed_questions"})
"""Settings that matter to what `checkup.py` measures, and not to the answers."""

_IN_EVIDENCE = frozenset({"evidence.explain", "evidence.max_new_tokens"})
"""Settings that matter to what the models show, which levelling takes by its content."""
_NOT_IN_SECTIONS = _IN_SCORES | _IN_CHECKUP | _IN_EVIDENCE
"""Of a section that a stage takes whole, as are `SpeedOnly` ones; a stage may still take one of them by its name."""


class Outcome(NamedTuple):
    """What became of one stage in this process."""

    stage: str
    why: str
    """What was done and why, in words."""
    counts: Mapping[str, int]
    note: str
    """What else the stage has to say; mostly nothing."""


class Run:
    """One alignment at work.

    Attributes:
        folder: The run folder, locked.
        config: The configuration.
        progress: Told of every step.
        tasks: The tasks by name, in the order of the configuration.
        outcomes: What became of each stage so far.
        models: Loads the models, and knows what to say of them.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, progress: Progress, *, only: str | None = None) -> None:
        """Joins a locked folder with what the configuration names.

        Args:
            folder: The run folder, already entered.
            config: The configuration.
            progress: Told of every step.
            only: The one stage that may work; those before it have to be up to date. None: any may.
        """
        self.folder = folder
        self.config = config
        self.progress = progress
        self.tasks: dict[str, Task] = {name: task_of(name, data) for name, data in config.tasks.items()}
        self.outcomes: list[Outcome] = []
        self.models = RunModels(config, folder.path / SERVER)
        self._only = only
        self._artifacts: dict[str, Artifact] = {}

    @property
    def pools(self) -> dict[str, list[Source]]:
        """Where the unlabelled images of each task come from."""
        return {name: [*map(open_source, data.images)] for name, data in self.config.tasks.items()}

    @cached_property
    def tests(self) -> dict[str, list[Question]]:
        """The labelled questions of each task that has a test split, as far as they can be scored."""
        return {name: kept_questions(made) for name, made in self._splits.items()}

    @cached_property
    def left_out(self) -> dict[str, dict[str, int]]:
        """How many questions of each test split cannot be scored, by reason."""
        return {name: kept_left_out(made) for name, made in self._splits.items()}

    @cached_property
    def _splits(self) -> dict[str, Artifact]:
        """The test splits, each read into the run folder once."""
        return {name: self._split(name, data) for name, data in self.config.tasks.items() if data.test}

    def _split(self, name: str, data: TaskData) -> Artifact:
        task = self.tasks[name]
        plan = {f"tasks.{name}.{key}": getattr(data, key) for key in ("subset", "missing", "metric")}
        made = self.folder.artifact(f"{TESTS}/{name}", inputs={"files": self._split_states[name]}, settings=plan)
        keep_split(made, task, data, self.progress)
        return made

    @cached_property
    def _split_states(self) -> dict[str, str]:
        return {name: split_state(self.tasks[name], data.test) for name, data in self.config.tasks.items() if data.test}

    @property
    def report_is_current(self) -> bool:
        """Whether `report.html` is younger than all that it tells of."""
        report, told = self.folder.path / REPORT, [SCORES, CONTROLS, CONFIG, "*/manifest.json"]
        newest = max(path.stat().st_mtime_ns for name in told for path in self.folder.path.glob(name))
        return report.exists() and report.stat().st_mtime_ns >= newest

    def artifact(self, name: str) -> Artifact:
        """The artifact that a stage has made or found up to date in this process."""
        return self._artifacts[name]

    def load_teacher(self) -> Model:
        """Loads the teacher."""
        return self.models.load(self.config.teacher, self.config.loading.teacher, "teacher")

    def load_student(self) -> Model:
        """Loads the student as it was before levelling."""
        return self.models.load(self.config.student, self.config.loading.student, "before")

    def load_levelled(self) -> Model:
        """Loads the student as levelling left it."""
        return self.load_own(self.artifact("student").path)

    def load_own(self, folder: Path) -> Model:
        """Loads a student that this run has trained, in the way of the student before."""
        loading = self.config.loading.student.model_copy(update={"revision": None, "commit": None})
        return self.models.load(f"hf:{folder}", loading, "after")

    @contextmanager
    def stage(
        self,
        name: str,
        artifact: str,
        *,
        of: Sequence[str],
        settings: Sequence[str],
        chosen: Mapping[str, object] = MappingProxyType({}),
        called: str = "",
    ) -> Iterator[Artifact]:
        """Gives a stage its artifact, finished if it is up to date, and notes what became of it.

        Args:
            name: The stage, as its command is called.
            artifact: The artifact's folder.
            of: What it is made of: artifacts, `teacher model`, `student model`, `pools`, `tests`,
                `annotate prompt`, `answer prompt`, `metric`.
            settings: The parts of the configuration that matter to it, such as `annotate`, `seed` and `level.replay`.
            chosen: Settings that are not the configuration's, under their names.
            called: What is said of it, where a stage makes several artifacts; empty: the stage's own name.

        Raises:
            UserError: The artifact is not up to date, but this stage may not work in this process.
        """
        inputs, plan = self._made_of(of, settings, chosen)
        self._refuse_unless_allowed(name, self.folder.peek(artifact, inputs=inputs, settings=plan))
        made = self._artifacts[artifact] = self.folder.artifact(artifact, inputs=inputs, settings=plan)
        if made.finished:
            yield made
            self._note(called or name, "up to date: nothing changed", made)
            return
        for stale in (SCORES, CONTROLS, REPORT):  # they tell of what is about to change
            (self.folder.path / stale).unlink(missing_ok=True)
        self.folder.event("began", stage=name)
        began = time.monotonic()
        self.models.begin(called or name, made)
        yield made
        seconds, counts = round(time.monotonic() - began, 1), made.manifest["counts"]
        self.folder.event("finished", stage=name, seconds=seconds, counts=counts)
        self._note(called or name, f"done again: {made.redone_because}" if made.redone_because else "done", made)

    def holds(self, artifact: str, *, of: Sequence[str], settings: Sequence[str], chosen: Mapping[str, object]) -> bool:
        """Whether an artifact is there, finished and made of just this; arguments as in `stage`."""
        inputs, plan = self._made_of(of, settings, chosen)
        return self.folder.peek(artifact, inputs=inputs, settings=plan).finished

    def _made_of(
        self, of: Sequence[str], settings: Sequence[str], chosen: Mapping[str, object]
    ) -> tuple[dict[str, str], dict[str, object]]:
        inputs = {label: digest for part in of for label, digest in self._digests(part).items()}
        plan = {key: value for part in settings for key, value in self._flat(part).items()}
        plan |= chosen
        if "level" in settings:
            plan |= self.config.level.stands_for
        return inputs, plan

    def _note(self, stage: str, why: str, made: Artifact) -> None:
        manifest = made.manifest
        self.outcomes.append(Outcome(stage, why, manifest["counts"], manifest.get("note", "")))

    def _refuse_unless_allowed(self, stage: str, found: Artifact) -> None:
        if found.finished or self._only in (None, stage):
            return
        folder = self.folder.path
        state = f"is out of date: {found.redone_because}" if found.redone_because else "is not finished"
        raise UserError(
            f"{self._only} builds on {found.path}, which {state}.\n"
            f"First: parityalign {stage} {folder}   (or do everything: parityalign run {folder / CONFIG})"
        )

    def _digests(self, part: str) -> dict[str, str]:
        """The identities of what `part` stands for, under names that a message may show."""
        if part in self._artifacts:
            return {part: self._artifacts[part].digest}
        tasks = self.tasks.values()
        match part:
            case "teacher model":
                return {part: self.models.teacher_fingerprint}
            case "student model":
                return {part: self.models.student_fingerprint}
            case "pools":
                return {f"images of {name}": self._digest_of(sources) for name, sources in self.pools.items()}
            case "tests":
                splits = self._splits.items()
                return {f"test of {name}": content_id(made.digest, self._split_states[name]) for name, made in splits}
            case "annotate prompt":
                return {f"{part} of {task.name}": content_id(task.annotate_prompt) for task in tasks}
            case "explain prompt":
                return {f"{part} of {task.name}": content_id(task.explain_prompt) for task in tasks}
            case "answer prompt":
                return {f"{part} of {task.name}": content_id(task.answer_prompt) for task in tasks}
            case "metric":
                return {f"{part} of {task.name}": content_id(task.metric.name) for task in tasks}
        raise ValueError(f"nothing is called {part!r} here")

    def _digest_of(self, sources: Sequence[Source]) -> str:
        # Images that are no files are kept in the run folder, and later records name their places: they move with it.
        place = "" if all(source.holds_files for source in sources) else str(self.folder.path)
        return content_id(place, *(source.digest() for source in sources))

    def _flat(self, part: str) -> dict[str, object]:
        """A part of the configuration as {dotted name: JSON value}."""
        section, _, key = part.partition(".")
        value = getattr(self.config, section)
        if not isinstance(value, Settings):
            return {part: value}
        values = {f"{section}.{name}": item for name, item in value.model_dump(mode="json").items()}
        if key:
            return {part: values[part]}
        left_out = _NOT_IN_SECTIONS | {f"{section}.{name}" for name in speed_only(type(value))}
        return {name: item for name, item in values.items() if name not in left_out}
