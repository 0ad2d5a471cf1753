"""How a run begins or goes on: what is looked at before anything is computed, so that no hour of work is lost to it.

Like `pipeline.py` this module joins packages.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from parityalign import training
from parityalign.config import (
    PREFIX,
    LoadingSettings,
    RunConfig,
    as_yaml,
    backend_of,
    divided,
    is_path,
    places_of,
    read_config,
    split_model,
)
from parityalign.core import (
    CONFIG,
    DEMO_DATA,
    DRAWN,
    EMBEDDED_MODELS,
    PairFilter,
    Progress,
    RunFolder,
    UserError,
    load_part,
    missing_package,
    write_whole,
)
from parityalign.models import check_model_folder, commit_of
from parityalign.pipeline.run import Run

_ROLES = ("teacher", "student")
_PACKAGES_OF_METHOD = {"lora": ("peft",), "qlora": ("peft", "bitsandbytes")}


@contextmanager
def open_run_folder(
    config: RunConfig, progress: Progress, *, only: str | None = None, asked: str | None = None, redo: bool = False
) -> Iterator[Run]:
    """Locks the run folder, writes the configuration into it and joins the parts.

    Args:
        config: The configuration; its `run` names the folder.
        progress: Told of every step.
        only: The one stage that may work.
        asked: The stage that is asked for by its name.
        redo: Whether the results of another configuration may be worked over.

    Raises:
        UserError: The folder is in use, is no run folder, is shared with what was given to the run, or holds a run
            of another configuration.
    """
    refuse_shared_folder(config, drawn=_drawn_by_demo(config.run))
    refuse_foreign_folder(config.run)
    path = config.run / CONFIG
    before = read_config(path) if path.exists() else None
    if before and not redo:
        refuse_other_run(before, config)
    config = _pinned(config, before)
    _refuse_unusable_models(config, before)
    for name in config.filters:
        load_part("filters", name, PairFilter)
    with RunFolder(config.run) as folder:
        if before != config:
            write_whole(path, as_yaml(config, folder.path))
        yield Run(folder, with_asked(config, asked), progress, only=only)


def with_asked(config: RunConfig, asked: str | None) -> RunConfig:
    """The configuration for one call: who asks for the discrepancy by its name has it, whatever run.yaml says."""
    if asked != "discrepancy":
        return config
    always = config.discrepancy.model_copy(update={"always": True})
    return config.model_copy(update={"discrepancy": always})


def _pinned(config: RunConfig, before: RunConfig | None) -> RunConfig:
    """The configuration with the commit of each model on the hub: the one that the run began with, if it did."""
    loadings = {}
    for role in _ROLES:
        loading, spec = getattr(config.loading, role), getattr(config, role)
        _, location = split_model(spec)
        if backend_of(spec).hub and not is_path(location) and not loading.commit:
            began: LoadingSettings | None = getattr(before.loading, role) if before else None
            same = began and getattr(before, role) == spec and began.revision == loading.revision
            kept = began.commit if began and same else None
            loadings[role] = loading.model_copy(update={"commit": kept or commit_of(location, loading)})
    return config.model_copy(update={"loading": config.loading.model_copy(update=loadings)})


def _refuse_unusable_models(config: RunConfig, before: RunConfig | None) -> None:
    """What would be found wrong only after hours of the teacher's work; looked at closely when a run begins."""
    for role in _ROLES:
        spec, loading = getattr(config, role), getattr(config.loading, role)
        backend, (_, location) = backend_of(spec), split_model(spec)
        if not before or (spec, loading) != (getattr(before, role), getattr(before.loading, role)):
            backend.check(location, loading)
        elif backend.hub:  # it was looked at before, but may be gone
            check_model_folder(location)
    for package in _PACKAGES_OF_METHOD.get(config.level.method, ()):
        if find_spec(package) is None:
            raise missing_package(f"level.method: {config.level.method}", package, package)
    _, location = split_model(config.student)
    trainable = backend_of(config.student).trainable
    if not before or before.level != config.level:
        if trainable or config.level.own_settings:
            training.refuse_terms(config.level.weights, config.level.own_settings)
        if trainable:
            training.refuse_student(location, config.loading.student, config.level)
    if config.level.method == "qlora" and (not before or before.level.method != "qlora"):
        training.refuse_method("qlora")


def refuse_shared_folder(config: RunConfig, *, drawn: Path | None = None) -> None:
    """Keeps the run folder apart from the pools, test splits and models that the user gave.

    Args:
        config: The configuration, with full paths.
        drawn: The folder whose pools and test splits the demo draws itself, so that they may lie in the run folder.

    Raises:
        UserError: The run folder is, contains or lies in one of them, by its name or by where links lead.
    """
    found = []
    for setting, places in _given(config):
        own = [place for place in places if not (drawn and _relation(drawn, place) in ("is", "contains"))]
        first = next((place for place in own if _relation(config.run, place)), None)
        if first:
            found.append(f"  - it {_relation(config.run, first)} {setting!r}: {_with_target(first)}")
    if found:
        told = "\n".join(found)
        raise UserError(
            f"the run folder {_with_target(config.run)} is not the run's alone:\n{told}\n"
            "A run deletes and makes anew what lies in its folder. "
            "Name a folder of its own as `run`, such as runs/NAME."
        )


def _drawn_by_demo(run: Path) -> Path | None:
    data = run / DEMO_DATA
    return data if (data / DRAWN).is_file() else None


def _given(config: RunConfig) -> Iterator[tuple[str, Sequence[Path]]]:
    """The settings that name files or folders of the user, with their places on this machine."""
    for name, data in config.tasks.items():
        for spec in data.images:
            yield f"tasks.{name}.images", places_of(spec)
        if data.test and data.test.startswith(PREFIX):
            yield f"tasks.{name}.test", _local(divided(data.test.removeprefix(PREFIX))[0])
        elif data.test:
            yield f"tasks.{name}.test", [Path(data.test)]
    for role in _ROLES:
        _, location = split_model(getattr(config, role))
        if not (backend_of(getattr(config, role)).remote or Path(location).is_relative_to(EMBEDDED_MODELS)):
            yield role, _local(location)


def _local(location: str) -> list[Path]:
    return [Path(location).expanduser()] if is_path(location) else []


def _relation(folder: Path, thing: Path) -> str | None:
    """What a folder is to a thing, in a word; None if the two are apart. Neither needs to exist."""
    pairs = list(product(_names(folder), _names(thing)))
    if any(one == other for one, other in pairs):
        return "is"
    if any(other.is_relative_to(one) for one, other in pairs):
        return "contains"
    return "lies in" if any(one.is_relative_to(other) for one, other in pairs) else None


def _names(path: Path) -> set[Path]:
    """As it is called, since a link is lost with the folder that it lies in, and where it leads."""
    return {Path(os.path.abspath(path)), Path(os.path.realpath(path))}


def _with_target(path: Path) -> str:
    target = Path(os.path.realpath(path))
    return str(path) if target == path else f"{path} (which leads to {target})"


def refuse_foreign_folder(folder: Path) -> None:
    """Keeps a run out of a folder that holds something else.

    Raises:
        UserError: The folder holds files but was never a run folder.
    """
    ours = not folder.is_dir() or (folder / CONFIG).exists() or (folder / ".lock").exists()
    if not ours and any(folder.iterdir()):
        raise UserError(
            f"{folder} holds files but is no run folder: it has no {CONFIG}. Name another, or an empty one."
        )


def refuse_other_run(before: RunConfig, now: RunConfig) -> None:
    """A changed setting redoes its stages; other models or images are another run and deserve a folder.

    Raises:
        UserError: The two differ in a model or in images, or have no task in common.
    """
    shared = sorted(before.tasks.keys() & now.tasks.keys())
    compared = [("teacher", before.teacher, now.teacher), ("student", before.student, now.student)]
    images = [
        (f"tasks.{name}.images", ", ".join(before.tasks[name].images), ", ".join(now.tasks[name].images))
        for name in shared
    ]
    found = [f"{what} was {old}, is {new}" for what, old, new in (*compared, *images) if old != new]
    if not shared:
        found.append(f"tasks was {', '.join(before.tasks)}, is {', '.join(now.tasks)}")
    if found:
        raise UserError(
            f"{now.run} holds a run of another configuration: {'; '.join(found)}.\n"
            "Name another folder as `run`, or add --redo to do again what changed."
        )
