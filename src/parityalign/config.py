"""The configuration of a run: typed, frozen, read from YAML, refused with all its problems at once."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from parityalign.errors import UserError
from parityalign.plugins import has, names, near, split_model


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


class Settings(BaseModel):
    """A part of the configuration; a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskData(Settings):
    """Where the pictures of one task are."""

    images: Path
    """Folder of unlabelled images; folders below it are read too."""
    test: Path | None = None
    """Folder with the benchmark's files as released. None: no labels, no scores."""


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


class LevelSettings(Settings):
    """How the student is trained on the gaps."""

    objective: Annotated[str, AfterValidator(_known("objectives", "objective"))] = "answer"
    """A file in `objectives/`."""
    method: Literal["full", "lora"] = "full"
    epochs: int = Field(default=3, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps in all, instead of `epochs`: fewer or more."""
    learning_rate: float = Field(default=2e-4, gt=0)
    batch_size: int = Field(default=64, ge=1)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    replay: float = Field(default=0.5, ge=0, lt=1)
    """Share of the training pairs that the student already had right; 0 is the paper's way."""
    held_out: float = Field(default=0.05, gt=0, lt=1)
    """Share of the pairs kept out of training, for early stopping."""
    patience: int = Field(default=3, ge=1)
    """Looks at the held-out loss without a new best after which training stops."""
    lora_rank: int = Field(default=16, ge=1)
    select: Literal["gaps", "all", "random"] = "gaps"
    """What is trained on besides replay: the gaps, all pairs, or as many pairs as gaps, drawn at random."""


class EvaluateSettings(Settings):
    """How the models are scored on the test splits."""

    limit: int | None = Field(default=None, ge=1)
    """Questions per task, the first of a seeded order; None: all."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of the images."""
    max_new_tokens: int = Field(default=32, ge=1)
    batch_size: int = Field(default=128, ge=1)


class RunConfig(Settings):
    """Everything that decides what a run makes."""

    run: Path
    """The run folder."""
    seed: int = Field(default=0, ge=0)
    teacher: Annotated[str, AfterValidator(_known_model)]
    """KIND:LOCATION, such as `embedded:teacher` or `hf:./folder`."""
    student: Annotated[str, AfterValidator(_known_model)]
    tasks: dict[Annotated[str, AfterValidator(_known("tasks", "task"))], TaskData] = Field(min_length=1)
    annotate: AnnotateSettings = AnnotateSettings()
    identify: IdentifySettings = IdentifySettings()
    level: LevelSettings = LevelSettings()
    evaluate: EvaluateSettings = EvaluateSettings()


def load_config(path: Path, folder: Path | None = None) -> RunConfig:
    """Reads and checks a configuration file.

    Args:
        path: The YAML file.
        folder: What relative paths in it are relative to; None: the folder of the file.

    Raises:
        UserError: The file is missing or not YAML, or anything in it is wrong; all problems are listed.
    """
    raw, folder = _read_yaml(path), Path(os.path.abspath(folder or path.parent))
    missing = list(_missing_folders(raw, folder))
    try:
        config = _with_full_paths(RunConfig.model_validate(raw), folder)
    except ValidationError as error:
        raise _refusal(path, [*map(_in_words, error.errors()), *missing]) from error
    problems = [*missing, *_inside_images(config)]
    if problems:
        raise _refusal(path, problems)
    return config


def read_config(path: Path, folder: Path | None = None) -> RunConfig:
    """Like `load_config`, but does not look whether the folders exist."""
    try:
        config = RunConfig.model_validate(_read_yaml(path))
    except ValidationError as error:
        raise _refusal(path, [*map(_in_words, error.errors())]) from error
    return _with_full_paths(config, Path(os.path.abspath(folder or path.parent)))


def as_yaml(config: RunConfig, folder: Path) -> str:
    """The complete configuration as the text of a YAML file in `folder`, with paths relative to it."""
    raw = config.model_dump(mode="json")
    raw["run"] = os.path.relpath(config.run, folder)
    for data in raw["tasks"].values():
        for key in ("images", "test"):
            data[key] = data[key] and os.path.relpath(data[key], folder)
    for role in ("teacher", "student"):
        kind, _, location = raw[role].partition(":")
        if os.path.isabs(location):
            place = os.path.relpath(location, folder)
            raw[role] = f"{kind}:{place if place.startswith('.') else f'./{place}'}"
    text: str = yaml.safe_dump(raw, sort_keys=False)
    return text


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, where plain YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as problem:
        raise UserError(f"cannot read the configuration {path}: {problem.strerror}") from problem
    except (yaml.YAMLError, ValueError) as problem:  # ValueError: no UTF-8, or a date such as 2024-13-45
        raise UserError(f"{path} is not YAML: {problem}") from problem
    if not isinstance(raw, dict):
        raise UserError(f"{path} holds no settings but {type(raw).__name__}; it needs at least run, teacher, ...")
    return raw


def _refusal(path: Path, problems: list[str]) -> UserError:
    listed = "\n".join(f"  - {problem}" for problem in problems)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return UserError(f"{path}: {count}\n{listed}")


def _in_words(problem: ErrorDetails) -> str:
    """One of pydantic's findings as a sentence: the key, what was given, what to write instead."""
    place = [str(part) for part in problem["loc"]]
    key = ".".join(place)
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {key!r}. {near(place[-1], _known_keys(place[:-1]))}"
    if problem["type"] == "missing":
        return f"{key!r} is missing"
    if problem["type"] == "value_error":
        return f"{key.removesuffix('.[key]')!r}: {problem['ctx']['error']}"
    return f"{key!r} is {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _known_keys(place: list[str]) -> list[str]:
    """The settings that may stand at a place such as ["level"] or ["tasks", "textvqa"]."""
    parts: dict[str, type[Settings]] = {
        "annotate": AnnotateSettings,
        "identify": IdentifySettings,
        "level": LevelSettings,
        "evaluate": EvaluateSettings,
        "tasks": TaskData,
    }
    return list((parts[place[0]] if place else RunConfig).model_fields)


def _full(path: str | Path, folder: Path) -> Path:
    return Path(os.path.abspath(folder / Path(path).expanduser()))


def _with_full_paths(config: RunConfig, folder: Path) -> RunConfig:
    """Records and later commands must not depend on where the first command was given."""

    def model(spec: str) -> str:
        kind, colon, location = spec.partition(":")
        is_path = location.startswith((".", "/", "~")) or (folder / location).exists()
        return f"{kind}:{_full(location, folder)}" if location and is_path and kind != "embedded" else spec

    tasks = {
        name: TaskData(images=_full(data.images, folder), test=data.test and _full(data.test, folder))
        for name, data in config.tasks.items()
    }
    update = {
        "run": _full(config.run, folder),
        "tasks": tasks,
        "teacher": model(config.teacher),
        "student": model(config.student),
    }
    return config.model_copy(update=update)


def _missing_folders(raw: dict[str, Any], folder: Path) -> Iterator[str]:
    """Looks at the file as it was read, so that a problem of form elsewhere does not hide these."""
    tasks = raw.get("tasks")
    for name, data in tasks.items() if isinstance(tasks, dict) else ():
        for key in ("images", "test"):
            said = data.get(key) if isinstance(data, dict) else None
            place = _full(said, folder) if isinstance(said, str) else None
            if place and not place.is_dir():
                what = "is not a folder" if place.exists() else "does not exist"
                yield f"'tasks.{name}.{key}' is {place}, which {what}"


def _inside_images(config: RunConfig) -> Iterator[str]:
    """Folders whose files would get into a pool."""
    for name, data in config.tasks.items():
        for key, folder in (("run", config.run), (f"tasks.{name}.test", data.test)):
            if folder and folder.is_relative_to(data.images):
                yield (
                    f"{key!r} ({folder}) lies inside 'tasks.{name}.images' ({data.images}), so its files "
                    "would be taken for unlabelled images. Move one of them"
                )
