"""A run at work: its plug-ins, models and artifacts, for the stages."""

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, TypedDict

from parityalign.config import RunConfig, Settings, TaskData, results_of
from parityalign.core import (
    CONFIG,
    CONTROLS,
    EARLIER,
    REPORT,
    SCORES,
    TESTS,
    Artifact,
    Judged,
    Leveller,
    Pair,
    Progress,
    Question,
    RunFolder,
    Says,
    Source,
    Task,
    UserError,
    WorkFailed,
    content_id,
    disk_faults_in_words,
    input_digest,
    kept_path,
    put_in_place,
)
from parityalign.data import (
    keep_split,
    kept_left_out,
    kept_questions,
    open_source,
    pairs_source,
    pairs_state,
    split_state,
)
from parityalign.engines import CachedModel
from parityalign.pipeline.level import leveller
from parityalign.pipeline.objective import note_left_out
from parityalign.pipeline.run_models import Ahead, RunModels
from parityalign.stages import (
    NO_REVIEW,
    Review,
    Stage,
    accepted_images,
    judged_pairs,
    read_review,
    scored_from,
    stages_of,
    written_pairs,
)
from parityalign.tasks import task_of


class _Plan(TypedDict):
    """What decides whether an artifact is up to date."""

    inputs: Mapping[str, str]
    settings: Mapping[str, object]
    parts: Mapping[str, str]


UP_TO_DATE = "up to date"


class Outcome(NamedTuple):
    """The outcome of one stage in this process."""

    stage: str
    why: str
    """What was done and why, as text."""
    counts: Mapping[str, int]
    note: str
    """The stage's note; usually empty."""

    @property
    def had_nothing_to_do(self) -> bool:
        """Whether the stage was up to date."""
        return self.why.startswith(UP_TO_DATE)


class Run:
    """One run at work.

    Attributes:
        folder: The run folder, locked.
        config: The configuration.
        progress: Called with every step.
        tasks: The tasks by name, in the order of the configuration.
        outcomes: The outcomes of the stages so far.
        models: Loads the models, and describes them in manifests.
        stages: Its stages, in order.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        progress: Progress,
        *,
        only: str | None = None,
        dry: bool = False,
    ) -> None:
        """Loads the plug-ins that the configuration names.

        Args:
            folder: The run folder, already entered.
            config: The configuration.
            progress: Called with every step.
            only: The only stage that may work; those before it have to be up to date. None: any may.
            dry: Whether models are only looked up in the answer store; see `dry_run`.
        """
        self.folder = folder
        self.config = config
        self.progress = progress
        self.tasks: Mapping[str, Task] = {name: task_of(name, data) for name, data in config.tasks.items()}
        self.outcomes: list[Outcome] = []
        self.models = RunModels(config, folder, self._announce, tasks=self.tasks, tell=self._tell, dry=dry)
        self.stages = stages_of(config)
        self._only = only
        self._working = ""
        self._artifacts: dict[str, Artifact] = {}

    @property
    def pools(self) -> dict[str, list[Source]]:
        """The sources of images by task: pools first, so that an image that pairs name too is the pool's."""
        return {
            name: [*map(open_source, data.images), *(pairs_source(spec, name) for spec in data.pairs)]
            for name, data in self.config.tasks.items()
        }

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
        benchmark = task.benchmark.name if task.benchmark else None
        said = {"subset": data.subset, "missing": data.missing, "metric": task.metric.name, "benchmark": benchmark}
        plan = {f"tasks.{name}.{key}": value for key, value in said.items()}
        made = self.folder.artifact(f"{TESTS}/{name}", inputs={"files": self._split_states[name]}, settings=plan)
        keep_split(made, task, data, self.progress)
        return made

    @cached_property
    def _split_states(self) -> dict[str, str]:
        given = {name: data.test for name, data in self.config.tasks.items() if data.test}
        places = {name: kept_path(test, self.folder.path) for name, test in given.items()}
        return {name: content_id(places[name], split_state(self.tasks[name], test)) for name, test in given.items()}

    def artifact(self, name: str) -> Artifact:
        """The artifact that a stage made or found up to date in this process."""
        return self._artifacts[name]

    @property
    def teacher(self) -> CachedModel:
        """The teacher, with its answers so far."""
        return self.models.teacher

    @property
    def student(self) -> CachedModel:
        """The student as it was before levelling."""
        return self.models.student

    @property
    def second_teacher(self) -> CachedModel | None:
        """The model that has to agree with a gap, if there is one."""
        return self.models.second_teacher

    @property
    def levelled(self) -> CachedModel:
        """The student as levelling left it."""
        return self.trained(self.artifact("student"))

    def trained(self, student: Artifact) -> CachedModel:
        """A student that this run has trained.

        Raises:
            UserError: It is damaged.
        """
        if student.finished:
            student.check()
        return self.models.trained(student)

    @cached_property
    def pairs(self) -> list[Pair]:
        """All pairs, the teacher's and one's own, with a person's answers where there are some."""
        written = written_pairs(self.artifact("pairs"), accepted_images(self.artifact("images")))
        return [*self.review.corrected(written)]

    @cached_property
    def review(self) -> Review:
        """A person's marks on the pairs, as they were when this process first looked."""
        return read_review(self.config.review) if self.config.review else NO_REVIEW

    @cached_property
    def judged(self) -> list[Judged]:
        """All pairs with their verdicts."""
        return judged_pairs(self.artifact("verdicts"), self.pairs)

    def leveller(self, artifact: Artifact) -> Leveller:
        """Trains the run's student; records in the artifact which terms of the loss have no teacher signals."""
        self.models.end_servers()  # training needs the memory
        note_left_out(self, artifact, self.config.level)
        return leveller(self, self.config.level, self.config.seed)

    def do(self, stage: Stage) -> None:
        """Does a stage unless its artifact is up to date, and records the outcome.

        Raises:
            UserError: The artifact is not up to date, but this stage may not work in this process.
        """
        put_in_place(self.folder.path / stage.artifact)
        self._refuse_unless_allowed(stage, self.look(stage))
        made = self.take(stage)
        if made.finished:
            self._note(stage, f"{UP_TO_DATE}: nothing changed", made)
            return
        # They describe what is about to change, and are written again at the end.
        views = (SCORES, CONTROLS, REPORT) if stage.artifact in scored_from(self.stages) else (REPORT,)
        stale = [name for name in views if (self.folder.path / name).exists()]
        for name in stale:
            (self.folder.path / name).unlink()
        self._working = stage.name
        if made.redone_because and isinstance(self.progress, Says):
            kept = f"; what is there will be kept in {EARLIER}/" if made.keeps_replaced else ""
            self.progress.say(f"{stage.name} is done again: {made.redone_because}{kept}")
        if stale and isinstance(self.progress, Says):
            self.progress.say(f"removed {' and '.join(stale)}, which told of what was there before")
        self.folder.event("began", stage=stage.name)
        began = time.monotonic()
        self._check_inputs(stage)
        self.models.begin(stage.name, made)
        with disk_faults_in_words(made.path):
            stage.work(self, made)
        if not made.finished:
            raise UserError(f"the stage {stage.name!r} ({stage.work.__module__}) ended without finishing its artifact")
        seconds, counts = round(time.monotonic() - began, 1), made.manifest["counts"]
        self.folder.event("finished", stage=stage.name, seconds=seconds, counts=counts)
        self._note(stage, f"done again: {made.redone_because}" if made.redone_because else "done", made)

    def is_current(self, stage: Stage) -> bool:
        """Whether a stage has been found or made up to date in this process."""
        return stage.artifact in self._artifacts

    def look(self, stage: Stage) -> Artifact:
        """The artifact of a stage as it is; the stages before it have been looked at."""
        found = self.folder.peek(stage.artifact, **self._plan(stage))
        if found.finished:
            self._artifacts[stage.artifact] = found
        return found

    def take(self, stage: Stage) -> Artifact:
        """The artifact of a stage, ready to be worked on."""
        made = self._artifacts[stage.artifact] = self.folder.artifact(stage.artifact, **self._plan(stage))
        return made

    def _tell(self, line: str) -> None:
        if isinstance(self.progress, Says):
            self.progress.say(line)

    def _announce(self, ahead: Ahead) -> None:
        """Tells what will be asked, where that is not plain from the progress; asks before much is paid for.

        Raises:
            WorkFailed: Whoever watches does not want it.
        """
        if not isinstance(self.progress, Says):
            return
        kept = ahead.total - ahead.missing
        asked = ahead.missing - ahead.waiting
        told = f"{self._working}: {asked:,} questions to {ahead.model}"
        if ahead.waiting:
            self.progress.say(f"{self._working}: {ahead.waiting:,} questions to {ahead.model} wait at its provider")
        if kept:
            self.progress.say(f"{told}; {kept:,} answers are there already")
        limit = self.config.server.confirm_above
        paid = ahead.remote and limit is not None and asked > limit
        if paid and not self.progress.confirm(f"{told}. Go on?"):
            raise WorkFailed(
                f"stopped before {asked:,} questions to {ahead.model}; what was done so far is kept.\n"
                "To go on, run the same command. server.confirm_above is the number from which it asks."
            )

    def holds(self, artifact: str, chosen: Mapping[str, object], parts: Mapping[str, str]) -> bool:
        """Whether a stage's artifact exists, is finished and is up to date with these settings and parts of inputs."""
        stage = next(each for each in self.stages if each.artifact == artifact)
        settings = {**self._settings(stage), **chosen}
        plan: _Plan = {"inputs": self._made_of(stage), "settings": settings, "parts": parts}
        return self.folder.peek(artifact, **plan).finished

    def _check_inputs(self, stage: Stage) -> None:
        """Compares what the stage is made from with its digests, unless that was done in this process."""
        of = (*stage.of, *stage.also_of(self.config))
        made = [self._artifacts[name] for name in of if name in self._artifacts]
        if "pairs" in of:  # whose pictures are looked at again
            made.append(self._artifacts["images"])
        for each in (*made, *(self._splits.values() if "tests" in of else ())):
            each.check()
            each.check_content()

    def _made_of(self, stage: Stage) -> dict[str, str]:
        of = (*stage.of, *stage.also_of(self.config))
        return {label: digest for part in of for label, digest in self._digests(part).items()}

    def _plan(self, stage: Stage) -> _Plan:
        settings = {**self._settings(stage), **stage.derived(self)}
        return {"inputs": self._made_of(stage), "settings": settings, "parts": stage.parts(self)}

    def _settings(self, stage: Stage) -> dict[str, object]:
        return {key: value for part in stage.settings for key, value in self._flat(part).items()}

    def _note(self, stage: Stage, why: str, made: Artifact) -> None:
        manifest = made.manifest
        self.outcomes.append(Outcome(stage.name, why, manifest["counts"], manifest.get("note", "")))

    def _refuse_unless_allowed(self, stage: Stage, found: Artifact) -> None:
        if found.finished or self._only in (None, stage.asked_by):
            return
        folder = self.folder.path
        state = f"is out of date: {found.redone_because}" if found.redone_because else "is not finished"
        raise UserError(
            f"{self._only} comes after {found.path}, which {state}.\n"
            f"First: parityalign {stage.asked_by} {folder}   (or do everything: parityalign run {folder / CONFIG})"
        )

    def _digests(self, part: str) -> dict[str, str]:
        """The digests of the input `part`, by names for messages."""
        if part in self._artifacts:
            return {part: self._artifacts[part].digest}
        tasks = self.tasks.values()
        match part:
            case "teacher model":
                return {part: self.models.teacher_fingerprint}
            case "student model":
                return {part: self.models.student_fingerprint}
            case "second_teacher model":
                return {part: self.models.second_fingerprint}
            case "annotate prompt":
                return {f"{part} of {task.name}": task.annotate_digest for task in tasks}
            case "rationale prompt":
                return {f"{part} of {task.name}": content_id(task.rationale_prompt) for task in tasks}
            case "answer prompt":
                return {f"{part} of {task.name}": content_id(task.answer_prompt) for task in tasks}
            case "metric":
                return {f"{part} of {task.name}": content_id(task.metric.name) for task in tasks}
        return self._digests_of_data(part)

    def _digests_of_data(self, part: str) -> dict[str, str]:
        match part:
            case "pools":
                return {f"images of {name}": self._digest_of(sources) for name, sources in self.pools.items()}
            case "own pairs":
                with_pairs = {name: data.pairs for name, data in self.config.tasks.items() if data.pairs}
                return {
                    f"pairs of {name}": content_id(*map(pairs_state, own), *self._asking_about(name))
                    for name, own in with_pairs.items()
                }
            case "review marks":
                return {part: self.review.digest} if self.review.digest else {}
            case "tests":
                splits = self._splits.items()
                return {f"{TESTS}/{name}": input_digest(made.manifest) for name, made in splits}
        raise ValueError(f"there is no input {part!r}")

    def _asking_about(self, task: str) -> list[str]:
        """How the teacher is asked one's own questions of a task; empty where there are none."""
        if not any(spec.answers == "teacher" for spec in self.config.tasks[task].pairs):
            return []
        return [self.tasks[task].answer_prompt, str(self.config.identify.max_new_tokens)]

    def _digest_of(self, sources: Sequence[Source]) -> str:
        # Images that are files of their own are found by their path from the run folder.
        run = self.folder.path
        places = (kept_path(source.where, run) if source.holds_files else "" for source in sources)
        return content_id(*places, *(source.digest() for source in sources))

    def _flat(self, part: str) -> dict[str, object]:
        """A part of the configuration as {dotted name: JSON value}."""
        section, _, key = part.partition(".")
        value = getattr(self.config, section)
        if not isinstance(value, Settings):
            return {part: value}
        if key:
            return {part: (value.model_dump(mode="json") | results_of(value))[key]}
        return {f"{section}.{name}": item for name, item in results_of(value).items()}
