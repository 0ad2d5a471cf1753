"""A run's configuration as a YAML file: read, checked (reports all problems at once), written with relative paths."""

import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from parityalign.config.base import LARGEST, Settings
from parityalign.config.data_specs import PREFIX, folder_of, full_source, is_own, is_table, problem_of, relative_source
from parityalign.config.model_specs import is_address, split_model
from parityalign.config.schema import PairsFile, RunConfig, TaskData, listed, unlisted
from parityalign.core import MANIFEST, UserError, did_you_mean, printable_path

REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "discrepancy.explain": "is called 'discrepancy.rationales' now",
        "evidence": "is called 'discrepancy' now, and 'explain' in it is called 'rationales'",
        "level.divergence": "is a setting of the term: write objective: {confidence: {weight: 1, divergence: ...}}",
        "level.parts": "is called 'level.lr_multipliers' now",
        "level.rounds": "was removed: two rounds scored 2.7 points below one of as many steps. Delete the line",
        "level.rows_at_once": "is called 'level.micro_batch_size' now",
        "level.warmup": "is called 'level.warmup_ratio' now",
        "loading.student.pixels": "is called 'loading.student.max_pixels' now",
        "loading.teacher.pixels": "is called 'loading.teacher.max_pixels' now",
        "server.attempts": "is called 'server.max_attempts' now",
        "server.deadline": "is called 'server.timeout' now",
        "server.in_flight": "is called 'server.max_concurrency' now",
        "server.wait": "is called 'server.backoff' now",
    }
)
"""Settings of earlier versions, by dotted name, with the message for a file that still has one."""

_MOST_TOLD = 30
"""Problems of one file that are listed."""
_TEXTS_KEPT = 16
"""Configurations that are not read again: a run reads its own and that of its folder a few times each."""


def load_config(path: Path, folder: Path | None = None, changes: Sequence[str] = ()) -> RunConfig:
    """Reads and checks a configuration file.

    Args:
        path: The YAML file.
        folder: What relative paths in it are relative to; None: the folder of the file.
        changes: Settings to use in place of the file's, such as `level.epochs=3`.

    Raises:
        UserError: The file is missing or not YAML, or anything in it or in the changes is wrong; all problems are
            listed.
    """
    raw = _read_yaml(path)
    for change in changes:
        _change(raw, change)
    return _checked(raw, path, Path(os.path.abspath(folder or path.parent)))


def _change(raw: dict[str, Any], change: str) -> None:
    """Puts a setting such as `level.epochs=3` in its place, with a value as YAML has it."""
    name, equals, text = change.partition("=")
    *sections, key = name.strip().split(".")
    if not equals or not all((*sections, key)):
        raise UserError(f"cannot set {change!r}: write SETTING=VALUE, such as level.epochs=3")
    try:
        value = yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise UserError(f"cannot set {change!r}: {text!r} is no value in YAML ({problem})") from problem
    for section in sections:
        below = raw.setdefault(section, {})
        if below is None:  # an empty section in the file
            below = raw[section] = {}
        if not isinstance(below, dict):
            raise UserError(f"cannot set {change!r}: {section!r} is {_shown(below)} and has no settings in it")
        raw = below
    raw[key] = value


def _checked(raw: dict[str, Any], path: Path, folder: Path) -> RunConfig:
    missing = list(_missing_folders(raw, folder))
    try:
        config = _with_full_paths(RunConfig.model_validate(raw), folder)
    except ValidationError as error:
        raise _unfit(path, error, missing) from error
    problems = [*missing, *_unwritable_names(config), *_inside_images(config)]
    if problems:
        raise _refusal(path, problems)
    return config


def read_config(path: Path, folder: Path | None = None) -> RunConfig:
    """Like `load_config`, but does not check whether the folders exist."""
    try:
        config = RunConfig.model_validate(_read_yaml(path))
    except ValidationError as error:
        raise _unfit(path, error) from error
    return _with_full_paths(config, Path(os.path.abspath(folder or path.parent)))


def config_of(settings: Mapping[str, object]) -> RunConfig:
    """A configuration from the settings of a YAML file as keywords; paths are relative to the working directory.

    Raises:
        UserError: Anything in it is wrong; all problems are listed.
    """
    return _checked(dict(settings), Path("the settings"), Path.cwd())


def config_in(run: Path) -> RunConfig:
    """The configuration in a run folder.

    Raises:
        UserError: It is missing, or it is wrong.
    """
    path = run / "run.yaml"
    if not path.is_file():
        raise UserError(f"{run} is not a run folder: it has no run.yaml. Begin with: parityalign run RUN.yaml")
    # The folder may have been moved since its run.yaml was written.
    return load_config(path).model_copy(update={"run": Path(os.path.abspath(run))})


def with_teacher(config: RunConfig, spec: str, folder: Path) -> RunConfig:
    """The same with another teacher, whose path, if it is one, is relative to the folder.

    Raises:
        UserError: There is no such model.
    """
    split_model(spec)
    return config.model_copy(update={"teacher": _full_spec(spec, folder)})


def as_yaml(config: RunConfig, folder: Path) -> str:
    """The complete configuration as the text of a YAML file in `folder`, with paths relative to it."""
    raw = config.model_dump(mode="json")
    raw["run"] = os.path.relpath(config.run, folder)
    for key, path in (("answers", config.answers), ("review", config.review)):
        raw[key] = path and os.path.relpath(path, folder)
    for data in raw["tasks"].values():
        data["images"] = unlisted(tuple(relative_source(spec, folder) for spec in listed(data["images"])))
        for given in data["pairs"]:
            given.update({key: os.path.relpath(given[key], folder) for key in ("file", "image_folder") if given[key]})
        if data["test"]:
            in_hub = data["test"].startswith(PREFIX)
            data["test"] = _relative_spec(data["test"], folder) if in_hub else os.path.relpath(data["test"], folder)
    for role in ("teacher", "student"):
        raw[role] = _relative_spec(raw[role], folder)
    if config.second_teacher:
        raw["verify"]["second_teacher"] = _relative_spec(config.second_teacher, folder)
    text: str = yaml.safe_dump(raw, sort_keys=False)
    return text


def _relative_spec(spec: str, folder: Path) -> str:
    """A KIND:LOCATION with its path relative to the folder, if its location is a path."""
    kind, _, location = spec.partition(":")
    if not os.path.isabs(location) or is_address(spec):
        return spec
    place = os.path.relpath(location, folder)
    return f"{kind}:{place if place.startswith('.') else f'./{place}'}"


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, where plain YAML would silently take the last, and absurd numbers."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        tag = getattr(self.peek_event(), "tag", None)  # type: ignore[no-untyped-call]  # its stub has no types
        node = super().compose_node(parent, index)
        if tag and node:  # PyYAML raises errors of any kind where a tag does not fit its value
            raise yaml.MarkedYAMLError(problem=f"the tag {tag!r} has no use here", problem_mark=node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = int(super().construct_yaml_int(node))
        if abs(value) > LARGEST:  # thousands of digits cannot even be shown
            raise yaml.MarkedYAMLError(problem="larger than any setting takes", problem_mark=node.start_mark)
        return value


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)


@lru_cache(_TEXTS_KEPT)
def _parsed(text: str) -> Any:  # noqa: ANN401 - whatever YAML can hold
    return yaml.load(text, _StrictLoader)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except IsADirectoryError as problem:
        raise UserError(f"{path} is a folder; name the configuration in it, such as {path / 'run.yaml'}") from problem
    except OSError as problem:
        raise UserError(f"cannot read the configuration {path}: {problem.strerror}") from problem
    except (yaml.YAMLError, ValueError) as problem:  # ValueError: not UTF-8, or a date such as 2024-13-45
        raise UserError(f"{path} is not YAML: {problem}") from problem
    except RecursionError as problem:
        raise UserError(f"{path} is nested too deeply for a configuration") from problem
    if not isinstance(raw, dict):
        found = type(raw).__name__
        raise UserError(f"{path} should hold a mapping of settings (run, teacher, ...), but holds {found}")
    return raw


def _unfit(path: Path, error: ValidationError, missing: Sequence[str] = ()) -> UserError:
    """What is wrong with a configuration, and for a run folder's own whether an earlier version made the folder."""
    refusal = _refusal(path, [*map(_in_words, error.errors()), *missing])
    old = [problem["loc"] for problem in error.errors() if _is_old(problem)]
    if not old or not any(path.parent.glob(f"*/{MANIFEST}")):
        return refusal
    sections = ", ".join(dict.fromkeys(str(place[0]) for place in old))
    return UserError(
        f"{refusal}\n"
        f"An earlier version of parityalign made this run folder. Nothing was changed in it.\n"
        f"Change the settings above in {path} and repeat the command: what depends on settings of {sections} "
        "may be done again, everything else is kept. To leave this folder as it is, set `run` to another one."
    )


def _is_old(problem: ErrorDetails) -> bool:
    return problem["type"] == "extra_forbidden" and ".".join(map(str, problem["loc"])) in REMOVED


def _refusal(path: Path, problems: list[str]) -> UserError:
    more = [f"and {len(problems) - _MOST_TOLD} more"] if len(problems) > _MOST_TOLD else []
    lines = "\n".join(f"  - {problem}" for problem in [*problems[:_MOST_TOLD], *more])
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return UserError(f"{path}: {count}\n{lines}")


def problems_with(kind: type[Settings], given: Mapping[str, object], place: str) -> list[str]:
    """What is wrong with settings of a plug-in, such as a term of the loss, one sentence per problem.

    Args:
        kind: The plug-in's settings.
        given: The values in a configuration.
        place: Where they are, such as `level.objective.confidence`.
    """
    try:
        kind.model_validate(given)
    except ValidationError as error:
        return [_in_words(problem, kind, f"{place}.") for problem in error.errors()]
    return []


def _in_words(problem: ErrorDetails, kind: type[Settings] = RunConfig, before: str = "") -> str:
    """One of pydantic's findings as a sentence: the key, what was given, what to write instead."""
    place = [str(part) for part in problem["loc"]]
    key = before + ".".join(place)
    if not before and _is_old(problem):
        return f"{key!r} {REMOVED[key]}"
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {key!r}. {did_you_mean(place[-1], _known_keys(place[:-1], kind))}"
    if problem["type"] == "missing":
        return f"{key!r} is missing"
    if problem["type"] == "value_error":
        said = str(problem["ctx"]["error"])
        return f"{key.removesuffix('.[key]')!r}: {said}" if key else said
    return f"{key!r} is {_shown(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _shown(given: object) -> str:
    """A value in a message; aliases make a list of lists endless in a few lines of YAML."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxlong = 2, 200, 40
    return short.repr(given)


def _known_keys(place: list[str], part: type[Settings]) -> list[str]:
    """The settings that are allowed at a place such as ["level"], ["loading", "student"] or ["tasks", "textvqa"]."""
    for key in place:
        below = part.model_fields[key].annotation if key in part.model_fields else None
        sections = [each for each in (below, *get_args(below)) if isinstance(each, type) and issubclass(each, Settings)]
        part = sections[0] if sections else _element(key, part)
    return list(part.model_fields)


def _element(key: str, part: type[Settings]) -> type[Settings]:
    """What stands below a key that names several: `tasks` and `pairs`, then a name or a number."""
    return PairsFile if part is PairsFile or (part is TaskData and key == "pairs") else TaskData


def _full(path: str | Path, folder: Path) -> Path:
    return Path(os.path.abspath(folder / Path(path).expanduser()))


def _with_full_paths(config: RunConfig, folder: Path) -> RunConfig:
    """Full paths: records and later commands must not depend on the first command's working directory."""

    tasks = {
        name: data.model_copy(
            update={
                "images": tuple(full_source(spec, folder) for spec in data.images),
                "pairs": tuple(_full_pairs(given, folder) for given in data.pairs),
                "test": data.test and _full_test(data.test, folder),
            }
        )
        for name, data in config.tasks.items()
    }
    update = {
        "run": _full(config.run, folder),
        "answers": config.answers and _full(config.answers, folder),
        "review": config.review and _full(config.review, folder),
        "tasks": tasks,
        "teacher": _full_spec(config.teacher, folder),
        "student": _full_spec(config.student, folder),
        "verify": config.verify.model_copy(
            update={"second_teacher": config.second_teacher and _full_spec(config.second_teacher, folder)}
        ),
        "engine": config.engine.model_copy(
            update={
                "program": config.engine.program and _full(config.engine.program, folder),
                "extra": tuple(_full_argument(said, folder) for said in config.engine.extra),
            }
        ),
    }
    return config.model_copy(update=update)


def _full_pairs(given: PairsFile, folder: Path) -> PairsFile:
    images = given.image_folder and str(_full(given.image_folder, folder))
    return given.model_copy(update={"file": str(_full(given.file, folder)), "image_folder": images})


def _full_argument(said: str, folder: Path) -> str:
    """An argument of a server, with a full path if it is one or has one behind its `=`."""
    option, equals, value = said.rpartition("=")
    is_path = value.startswith(("./", "../", "~/")) or os.path.isfile(folder / value)
    return f"{option}{equals}{_full(value, folder)}" if is_path else said


def _full_spec(spec: str, folder: Path) -> str:
    """A KIND:LOCATION with a full path, if its location is a path."""
    kind, _, location = spec.partition(":")
    is_path = location.startswith((".", "/", "~")) or (folder / location).exists()
    named = kind == "embedded" or is_address(spec)
    return f"{kind}:{_full(location, folder)}" if location and is_path and not named else spec


def _full_test(test: str, folder: Path) -> str:
    return _full_spec(test, folder) if test.startswith(PREFIX) else str(_full(test, folder))


def _missing_folders(raw: dict[str, Any], folder: Path) -> Iterator[str]:
    """Checks the file as it was read, so that schema errors elsewhere do not hide these."""
    if isinstance(review := raw.get("review"), str) and not _full(review, folder).is_file():
        yield f"'review' is {_full(review, folder)}, which is no file; to begin with, make an empty one"
    tasks = raw.get("tasks")
    for name, data in tasks.items() if isinstance(tasks, dict) else ():
        said = data if isinstance(data, dict) else {}
        for spec in listed(said.get("images", ())):
            problem = problem_of(full_source(spec, folder)) if isinstance(spec, str) else None
            if problem:
                yield f"'tasks.{name}.images' {problem}"
        yield from _missing_pairs(f"tasks.{name}.pairs", said.get("pairs", ()), folder)
        test = said.get("test")
        place = _full(test, folder) if isinstance(test, str) and not test.startswith(PREFIX) else None
        if place and not place.is_dir() and not (place.is_file() and (is_own(str(place)) or is_table(place))):
            what = "is not a folder" if place.exists() else "does not exist"
            yield f"'tasks.{name}.test' is {place}, which {what}"


def _unwritable_names(config: RunConfig) -> Iterator[str]:
    """Paths that no record of a run can hold, since their names are not text: folders of old disks."""
    places = {"run": str(config.run), "teacher": config.teacher, "student": config.student}
    places["verify.second_teacher"] = config.second_teacher or ""
    for name, data in config.tasks.items():
        places[f"tasks.{name}.test"] = data.test or ""
        places |= {f"tasks.{name}.images": spec for spec in data.images}
    for key, place in places.items():
        shown = printable_path(Path(place))
        if shown != str(Path(place)):
            yield f"{key!r} is {shown}, whose name is not UTF-8. Rename the folder, or move the project into another"


def _missing_pairs(key: str, said: object, folder: Path) -> Iterator[str]:
    for each in listed(said):
        given = {"file": each} if isinstance(each, str) else each if isinstance(each, dict) else {}
        file, images = given.get("file"), given.get("image_folder")
        if isinstance(file, str) and not _full(file, folder).exists():
            yield f"{key!r} is {_full(file, folder)}, which does not exist"
        if isinstance(images, str) and not _full(images, folder).is_dir():
            yield f"'{key}.image_folder' is {_full(images, folder)}, which is not a folder"


def _inside_images(config: RunConfig) -> Iterator[str]:
    """Folders whose files would be read as unlabelled images."""
    for name, data in config.tasks.items():
        local = data.test and not data.test.startswith(PREFIX)
        for key, folder in (("run", config.run), (f"tasks.{name}.test", Path(data.test or "") if local else None)):
            for pool in filter(None, map(folder_of, data.images)):
                if folder and folder.is_relative_to(pool):
                    yield (
                        f"{key!r} ({folder}) lies inside 'tasks.{name}.images' ({pool}), so its files "
                        "would be taken for unlabelled images. Move one of them"
                    )
