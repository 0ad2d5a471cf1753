"""The configuration of a run: typed and frozen; `run_yaml.py` reads and writes it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    field_validator,
    model_validator,
)

from parityalign.config.annotate import AnnotateSettings
from parityalign.config.backend import backend_of
from parityalign.config.base import Settings, SpeedOnly, as_section
from parityalign.config.cluster import RaySettings
from parityalign.config.data_specs import is_own
from parityalign.config.engine import EngineSettings
from parityalign.config.loading import Loadings
from parityalign.config.model_specs import known_model
from parityalign.config.pair_files import known_pair_column, known_pair_format
from parityalign.config.serving import ServerSettings
from parityalign.config.task_parts import parts_of_task, problems_of_name
from parityalign.config.training import PRESET, LevelSettings
from parityalign.config.verify import VerifySettings, foreign_filter
from parityalign.core import (
    KIND_FIELD,
    did_you_mean,
    fault_of_annotate_prompt,
    fault_of_answer_prompt,
    known_part,
)


def listed(said: object) -> Sequence[Any]:
    """One or a list of things, as a list."""
    return said if isinstance(said, list | tuple) else [said]


def unlisted(several: tuple[str, ...]) -> object:
    """The inverse: a single thing alone, several as a list."""
    return several[0] if len(several) == 1 else list(several)


def _checked(fault_of: Callable[[str], str]) -> Callable[[str], str]:
    """A validator of a prompt, for a setting; it raises ValueError."""

    def check(prompt: str) -> str:
        fault = fault_of(prompt)
        if not fault and "<image>" in prompt:
            fault = f"is {prompt!r}; leave out <image>, since each model's chat template inserts the picture"
        if fault:
            raise ValueError(fault)
        return prompt

    return check


_AnnotatePrompt = Annotated[str, AfterValidator(_checked(fault_of_annotate_prompt))]
_AnswerPrompt = Annotated[str, AfterValidator(_checked(fault_of_answer_prompt))]
_Kind = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_NO_KINDS = "none"
"""In a file, for None."""


class PairsFile(Settings):
    """A file of pairs of one's own: questions and answers about images that it names or holds."""

    file: Annotated[str, Field(min_length=1)]
    """JSON lines or a JSON list, CSV, Parquet, or the folder of an export."""
    format: Annotated[str, AfterValidator(known_pair_format)] | None = None
    """One of `PAIR_FORMATS`. None: by the suffix and the keys of the first row."""
    columns: dict[Annotated[str, AfterValidator(known_pair_column)], str] = {}
    """The file's own names for `PAIR_COLUMNS`."""
    image_folder: str | None = None
    """Where paths of images begin that are not full ones. None: in the folder of the file."""
    answers: Literal["ask", "given", "teacher"] = "ask"
    """`ask`: both models are asked about every pair. `given`: what the file says that they answered counts. `teacher`:
    rows are questions; answers in the file are not read, and the teacher's make them pairs."""


def _with_file(said: object) -> Sequence[Any]:
    """One or several files of pairs; of one that is only named, the settings are the defaults."""
    return [{"file": each} if isinstance(each, str) else each for each in listed(said)]


class TaskData(Settings):
    """The images of one task, and its prompts and metric."""

    images: Annotated[tuple[str, ...], BeforeValidator(listed), PlainSerializer(unlisted)] = ()
    """Unlabelled images, one source or a list of them: a folder (those below it are read too), a `.txt` or `.jsonl`
    file that names images, Parquet files or tar shards (patterns are allowed), or `hf:OWNER/NAME[:SPLIT]`. Empty: the
    teacher writes no pairs, and there have to be `pairs`."""
    pairs: Annotated[tuple[PairsFile, ...], BeforeValidator(_with_file)] = ()
    """Pairs of one's own, which are judged and trained on like the teacher's: one file or a list of them, by name or
    with settings."""
    test: str | None = None
    """Labelled questions: a folder with the benchmark's files as released or with Parquet files, a `.jsonl` file, or
    `hf:OWNER/NAME[:SPLIT]`. None: no labels, no scores."""
    skill: Annotated[str, AfterValidator(known_part("skills"))] | None = None
    """The skill whose prompts are used: a file in `tasks/skills/`. None: the skill of the task's name, else the
    benchmark's, else `vqa`."""
    benchmark: Annotated[str, AfterValidator(known_part("benchmarks"))] | None = None
    """The benchmark whose format `test` has, unless `test` is your own file: a file in `tasks/benchmarks/`. None: the
    benchmark of the task's name, if there is one."""
    annotate_prompt: _AnnotatePrompt | None = None
    """Asks the teacher for a question and its answer. None: the skill's."""
    answer_prompt: _AnswerPrompt | None = None
    """Asks both models for an answer to `{question}`. None: the skill's."""
    rationale_prompt: _AnswerPrompt | None = None
    """Asks the teacher for the rationale of its answer to `{question}`. None: the skill's."""
    kinds: Annotated[
        tuple[_Kind, ...] | None,
        BeforeValidator(lambda said: None if said == _NO_KINDS else said),
        PlainSerializer(lambda kinds: _NO_KINDS if kinds is None else list(kinds)),
    ] = ()
    """Kinds of questions, in a few words each; each draw asks for one of them, which replaces `{kind}` in the annotate
    prompt. Empty: what `tasks.settled` makes of the skill's. None, in a file `none`: all draws ask the same."""
    metric: Annotated[str, AfterValidator(known_part("metrics"))] | None = None
    """A file in `metrics/`, for the scores, and for identify with `rule: metric`. None: the benchmark's, else the
    skill's."""
    subset: str | None = None
    """The part of the test split that is scored, such as ChartQA's `human`. None: the benchmark's default."""
    missing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the test split's questions that may lack their image or answers; more is an error."""

    @field_validator("kinds")
    @classmethod
    def _distinct(cls, kinds: tuple[str, ...] | None) -> tuple[str, ...] | None:
        repeated = [kind for kind in dict.fromkeys(kinds or ()) if kinds and kinds.count(kind) > 1]
        if repeated:
            raise ValueError(f"{repeated[0]!r} is given twice")
        return kinds

    def problems(self, name: str) -> Iterator[str]:
        """Inconsistencies of these settings if this is the task `name`, in words.

        Raises:
            UserError: A skill or benchmark of another package cannot be used.
        """
        if not (self.images or self.pairs):
            yield f"'tasks.{name}.images' is missing; a task has images, or 'pairs' of your own, or both"
        yield from problems_of_name(name, self.skill)
        skill, benchmark = parts_of_task(name, self.skill, self.benchmark)
        known = list(benchmark.subsets) if benchmark else []
        if self.subset is not None and self.subset not in known:
            yield f"{name} has no subset {self.subset!r}. {did_you_mean(self.subset, known)}"
        if self.test and not benchmark and not is_own(self.test):
            yield (
                f"'tasks.{name}.test' is {self.test}, but no benchmark says how to read its questions. Name the "
                f"benchmark, such as 'tasks.{name}.benchmark: textvqa', or give questions of your own in a .jsonl file"
            )
        kinds = None if self.kinds is None else self.kinds or skill.kinds
        if KIND_FIELD in (self.annotate_prompt or skill.annotate_prompt) and not kinds:
            whose = "" if self.annotate_prompt else f" of the skill {skill.name}"
            yield (
                f"'tasks.{name}.annotate_prompt'{whose} has the field {KIND_FIELD}, but there are no "
                f"'tasks.{name}.kinds'"
            )


class IntakeSettings(Settings):
    """Which valid images are set aside."""

    near_duplicates: bool = True
    """Drop near-duplicates (re-encoded or resized copies) within a pool. Exact duplicates are always dropped."""
    overlap_guard: bool = True
    """Drop images of the run's test splits, and re-encoded or resized copies of them, from every pool."""


class IdentifySettings(Settings):
    """How gaps are identified."""

    rule: Literal["judge", "metric", "paper"] = "judge"
    """`judge`: words and numbers are compared as a reader would, and what they do not tell is unsure; `metric`: the
    task's metric reaches the threshold; `paper`: the paper's substring rule."""
    ask_teacher: Literal["failures", "all"] = "failures"
    """Ask the teacher again only where the student failed (`failures`), or for all pairs (`all`)."""
    settle: Literal["teacher"] | None = None
    """Ask the teacher, without the picture, whether an answer that the judge is unsure of means the same as the
    pair's (`teacher`). None: such a pair stays unsure."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Score from which an answer counts as right by `rule: metric`."""
    max_new_tokens: int = Field(default=32, ge=1)
    batch_size: Annotated[int, SpeedOnly] = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _settings_are_used(self) -> Self:
        if self.rule == "judge" and self.threshold != 0.5:
            raise ValueError(
                f"threshold is {self.threshold}, but the judge has none. Set `rule: metric`, or leave the threshold out"
            )
        if self.rule != "judge" and self.settle:
            raise ValueError(
                f"settle is {self.settle}, but `rule: {self.rule}` is never unsure. Set `rule: judge`, or leave it out"
            )
        return self


class DiscrepancySettings(Settings):
    """How both models are scored teacher-forced on the pairs' answers, to compare them and for the objective."""

    always: Annotated[bool, SpeedOnly] = False
    """Whether `parityalign run` compares the models on all pairs, even if training needs it for its own pairs only, or
    not at all."""
    rationales: bool = False
    """Whether the teacher is asked for a rationale of each answer even if no term of the objective needs one; both
    models are then scored on the rationales too."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Most tokens of a rationale."""
    batch_size: Annotated[int, SpeedOnly] = Field(default=256, ge=1)
    weight_by: Literal["none", "teacher_confidence", "confidence_gap"] = "none"
    """What decides a pair's weight in levelling; see `stages.pair_weights`."""
    weight_exponent: float = Field(default=1.0, gt=0)

    def used_in_training(self, level: LevelSettings) -> bool:
        """Whether such a training needs the stored signals, for a term or for the weights of pairs."""
        return level.needs_signals or self.weight_by != "none"

    def compares_all(self, level: LevelSettings) -> bool:
        """Whether all pairs are scored, not only those that such a training needs."""
        return self.always or not self.used_in_training(level)

    def in_levelling(self, level: LevelSettings) -> dict[str, object]:
        """The settings here that such a training depends on, by their dotted names."""
        if not self.used_in_training(level):
            return {}
        return {"discrepancy.weight_by": self.weight_by, "discrepancy.weight_exponent": self.weight_exponent}


class EvaluateSettings(Settings):
    """How the models are scored on the test splits."""

    limit: int | None = Field(default=None, ge=1)
    """Questions per task, the first of a seeded order; None: all."""
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    """Bootstrap resamples of the images."""
    max_new_tokens: int = Field(default=32, ge=1)
    batch_size: Annotated[int, SpeedOnly] = Field(default=256, ge=1)
    forgotten_pairs: int = Field(default=1000, ge=0)
    """Most pairs that the student had right and was not trained on to ask again after levelling; 0: none."""
    speed_questions: int = Field(default=128, ge=0)
    """Most questions to time the student on, before and after, alternating; 0: no timing."""


Role = Literal["teacher", "student", "second_teacher"]


class RunConfig(Settings):
    """The complete configuration of a run."""

    run: Path
    """The run folder."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    teacher: Annotated[str, AfterValidator(known_model)]
    """KIND:LOCATION, such as `embedded:teacher`, `hf:./folder` or `vllm:OWNER/NAME`, or `http://HOST:PORT/v1#NAME`."""
    student: Annotated[str, AfterValidator(known_model)]
    tasks: dict[str, TaskData] = Field(min_length=1)
    """By name: a known skill or benchmark, or any other name for your own task."""
    stages: tuple[Annotated[str, AfterValidator(known_part("stages"))], ...] = ()
    """Additional stages, of other packages."""
    filters: tuple[Annotated[str, AfterValidator(foreign_filter)], ...] = ()
    """Filters of pairs of other packages, in order: a pair that any of them drops is not trained on."""
    review: Path | None = None
    """A file with a person's marks: which pairs to drop, and which answers to correct. None: there is none."""
    answers: Path | None = None
    """The file of the answer store, which several runs may share; it has to lie on a disk of this machine. None:
    `answers.sqlite` in the run folder."""
    loading: Loadings = Loadings()
    intake: IntakeSettings = IntakeSettings()
    annotate: AnnotateSettings = AnnotateSettings()
    identify: IdentifySettings = IdentifySettings()
    verify: VerifySettings = VerifySettings()
    discrepancy: DiscrepancySettings = DiscrepancySettings()
    level: LevelSettings = LevelSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    server: ServerSettings = ServerSettings()
    engine: EngineSettings = EngineSettings()
    ray: Annotated[RaySettings | None, BeforeValidator(as_section)] = None
    """A Ray cluster on whose nodes the models are asked; `true` is one of this machine alone. None: they are asked by
    processes of this machine."""

    @property
    def second_teacher(self) -> str | None:
        """The model that has to agree with a gap, if the run has one."""
        return self.verify.second_teacher

    @property
    def roles(self) -> tuple[Role, ...]:
        """The run's models: settings here and in `loading` have these names."""
        return ("teacher", "student", "second_teacher") if self.second_teacher else ("teacher", "student")

    def server_of(self, role: Role) -> ServerSettings:
        """How a model is asked that is served; of the teacher's key the second one gets to know nothing."""
        if role != "second_teacher":
            return self.server
        return self.server.model_copy(update={"key_variable": self.server.second_key_variable})

    @property
    def wants_discrepancy(self) -> bool:
        """Whether the run scores both models teacher-forced."""
        own = self.discrepancy
        return own.always or own.rationales or own.used_in_training(self.level)

    def shows(self, role: Literal["teacher", "student"]) -> bool:
        """Whether a model gives signals, not only text; what it says after thoughts cannot be scored without them."""
        return backend_of(getattr(self, role)).shows and not getattr(self.loading, role).thinking_tokens

    @property
    def most_reply_tokens(self) -> int:
        """Most tokens of a reply that any stage asks for, without thoughts."""
        sections = (self.annotate, self.identify, self.discrepancy, self.evaluate)
        return max(section.max_new_tokens for section in sections)

    @property
    def wants_rationales(self) -> bool:
        """Whether the teacher is asked for rationales."""
        return self.discrepancy.rationales or self.level.needs_rationales

    @model_validator(mode="after")
    def _second_teacher_is_another(self) -> Self:
        if self.second_teacher == self.teacher:
            raise ValueError(
                f"verify.second_teacher is {self.second_teacher}, which is the teacher. Name another model; "
                "verify.re_answers asks the teacher itself again"
            )
        return self

    @model_validator(mode="after")
    def _teacher_shows_enough(self) -> Self:
        # `discrepancy` leaves out terms without teacher signals.
        named = [] if PRESET in self.level.objective else self.level.needs_observations
        wanted = [f"level.objective has the term {name!r}" for name in named]
        if self.discrepancy.weight_by != "none":
            wanted.append(f"discrepancy.weight_by is {self.discrepancy.weight_by}")
        if wanted and not self.shows("teacher"):
            thinks = ", as it thinks before it answers" if self.loading.teacher.thinking_tokens else ""
            raise ValueError(
                f"{wanted[0]}, but the teacher {self.teacher} gives only text{thinks}. Leave that out, or take a "
                "teacher that runs in this process and answers at once"
            )
        return self

    @model_validator(mode="after")
    def _signals_are_of_what_is_learnt(self) -> Self:
        if self.level.target and self.discrepancy.used_in_training(self.level):
            raise ValueError(
                f"level.target is {self.level.target}, but the objective or discrepancy.weight_by uses the teacher's "
                "signals, which belong to the pairs' own answers. Leave level.target out, or train on `answer` alone"
            )
        return self

    @model_validator(mode="after")
    def _student_answers_at_once(self) -> Self:
        if self.loading.student.thinking_tokens and backend_of(self.student).trainable:
            raise ValueError(
                f"loading.student.thinking_tokens is {self.loading.student.thinking_tokens}, but {self.student} is "
                "trained to answer at once. Take a student that does not think, or switch its thoughts off: "
                "loading.student.chat_template_kwargs"
            )
        return self

    @field_validator("tasks")
    @classmethod
    def _fit_together(cls, tasks: dict[str, TaskData]) -> dict[str, TaskData]:
        problems = [problem for name, data in tasks.items() for problem in data.problems(name)]
        if problems:
            raise ValueError("; ".join(problems))
        return tasks
