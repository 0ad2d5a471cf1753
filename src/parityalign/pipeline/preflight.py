"""Starts or resumes a run: all checks that can be made before anything is computed, so that no work is lost."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from parityalign import training
from parityalign.config import (
    PREFIX,
    EngineSettings,
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
    BEGUN,
    CONFIG,
    DEMO_DATA,
    DRAWN,
    EMBEDDED_MODELS,
    HALF_WRITTEN,
    LOCK,
    MARKER,
    OWNER,
    PREPARED,
    PictureRoom,
    Progress,
    RunFolder,
    Says,
    UserError,
    keeping_pictures,
    missing_package,
    trusting_files,
    write_whole,
)
from parityalign.models import check_model_folder, refuse_damaged, refuse_teacher, unchecked_family
from parityalign.pipeline.begun import made_with, manifests, pinned, refuse_rate, with_decided, with_pixel_limits
from parityalign.pipeline.recording import Recorded
from parityalign.pipeline.run import Run
from parityalign.stages import filters_of
from parityalign.tasks import settled

_OF_A_RUN = ("teacher", "student")
"""The models by which a run is this run; what else is asked may change."""
_PACKAGES_OF_METHOD = {"lora": ("peft",), "qlora": ("peft", "bitsandbytes")}
_PACKAGES_OF_REPORTER = {"tensorboard": ("tensorboard", "tensorboardX")}
"""Packages one of which is needed, where it is not called like the reporter."""


@contextmanager
def open_run_folder(
    config: RunConfig,
    progress: Progress,
    *,
    only: str | None = None,
    asked: str | None = None,
    redo: bool = False,
    trusts: bool = False,
) -> Iterator[Run]:
    """Locks the run folder, writes the configuration into it and loads the plug-ins.

    Args:
        config: The configuration; its `run` names the folder.
        progress: Called with every step.
        only: The only stage that may work.
        asked: The stage that was requested by name.
        redo: Allow redoing the results of another configuration.
        trusts: Use the files of finished artifacts without comparing them with their digests.

    Raises:
        UserError: The folder is in use, is not a run folder, overlaps with inputs of the run, or holds a run of another
            configuration.
    """
    path = config.run / CONFIG
    before = refuse_unusable(config, redo=redo)
    config = settled(pinned(config, before))
    began = before if any(config.run.glob(f"*/{BEGUN}")) or any(manifests(config.run)) else None
    _refuse_unusable_models(config, began)
    for warning in _unchecked_families(config, began):
        _saying(progress)(warning)
    config = with_decided(with_pixel_limits(config, began), before)
    _refuse_unusable_level(config, began)
    filters_of(config)
    with RunFolder(config.run) as folder, trusting_files(trusts), keeping_pictures(_room(config, progress)):
        if before != config:
            write_whole(path, as_yaml(config, folder.path))
        recorded = Recorded(folder, progress)
        run = Run(folder, with_asked(config, asked), recorded, only=only)
        try:
            count = run.models.carry_over()
            if count and isinstance(progress, Says):
                progress.say(
                    f"{count:,} answers in the run's files were taken into its answer store, not to be asked again"
                )
            yield run
        finally:
            run.models.close()
            recorded.end()


def _room(config: RunConfig, progress: Progress) -> PictureRoom | None:
    """Where the run's models may keep the pictures that they prepare."""
    most = int(config.loading.prepared_gigabytes * 10**9)
    return PictureRoom(config.run / PREPARED, most, _saying(progress)) if most else None


def _saying(progress: Progress) -> Callable[[str], None]:
    return progress.say if isinstance(progress, Says) else lambda _: None


def refuse_unusable(config: RunConfig, *, redo: bool = False) -> RunConfig | None:
    """Refuses a run folder that a run with this configuration may not work in.

    Args:
        config: The configuration; its `run` names the folder.
        redo: Allow redoing the results of other models.

    Returns:
        The configuration that the folder was used with before; None if it is new.

    Raises:
        UserError: It overlaps with inputs of the run, is not a run folder, or holds a run with other models.
    """
    refuse_shared_folder(config, drawn=_drawn_by_demo(config.run))
    refuse_foreign_folder(config.run)
    path = config.run / CONFIG
    before = read_config(path) if path.exists() else None
    if before and not redo:
        refuse_other_run(before, config)
    return before


def with_asked(config: RunConfig, asked: str | None) -> RunConfig:
    """The configuration for one call: requesting the discrepancy by name enables it, whatever run.yaml says."""
    if asked != "discrepancy":
        return config
    always = config.discrepancy.model_copy(update={"always": True})
    return config.model_copy(update={"discrepancy": always})


def _refuse_unusable_models(config: RunConfig, before: RunConfig | None) -> None:
    """Checks for problems that would otherwise show only after hours of work; more thorough when a run begins.

    A run begins with its first artifact: its `run.yaml` may be what the user wrote there.
    """
    for role in config.roles:
        spec, loading = getattr(config, role), getattr(config.loading, role)
        backend, (_, location) = backend_of(spec), split_model(spec)
        if not before or (spec, loading) != (getattr(before, role), getattr(before.loading, role)):
            _check_model(role, spec, loading, config.engine)
        elif backend.hub and is_path(location):  # checked before, but may have been removed or damaged
            check_model_folder(location)
            refuse_damaged(location, Path(location).expanduser())


def _unchecked_families(config: RunConfig, before: RunConfig | None) -> Iterator[str]:
    """What is to be said, once, of models whose families are held to no checks."""
    for role in config.roles:
        spec = getattr(config, role)
        backend, (_, location) = backend_of(spec), split_model(spec)
        if backend.trainable and (not before or spec != getattr(before, role)):
            told = unchecked_family(location, getattr(config.loading, role))
            if told:
                yield told


def _refuse_unusable_level(config: RunConfig, before: RunConfig | None) -> None:
    """The same for training."""
    method = config.level.decided.method
    for package in _PACKAGES_OF_METHOD.get(method, ()):
        if find_spec(package) is None:
            raise missing_package(f"level.method: {method}", package, package)
    for name in config.level.report_to:
        packages = _PACKAGES_OF_REPORTER.get(name, (name,))
        if not any(map(find_spec, packages)):
            raise missing_package(f"level.report_to: {name}", packages[0], packages[0])
    _, location = split_model(config.student)
    trainable = backend_of(config.student).trainable
    if not before or before.level != config.level:
        if trainable or config.level.own_settings:
            training.refuse_terms(config.level.weights, config.level.own_settings)
        if trainable:
            training.refuse_student(location, config.loading.student, config.level)
            refuse_rate(config)
    if method == "qlora" and (not before or before.level.method != "qlora"):
        training.refuse_method("qlora")
    if not before or before.level.optimiser != config.level.optimiser:
        training.refuse_optimiser(config.level.optimiser)


def _check_model(role: str, spec: str, loading: LoadingSettings, engine: EngineSettings) -> None:
    backend, (_, location) = backend_of(spec), split_model(spec)
    if backend.serve:
        backend.serve.check(location, loading, engine)
        return
    backend.check(location, loading)
    if role != "student" and backend.hub:
        refuse_teacher(location, loading)


def refuse_shared_folder(config: RunConfig, *, drawn: Path | None = None) -> None:
    """Refuses a run folder that overlaps with the user's pools, test splits or models.

    Args:
        config: The configuration, with full paths.
        drawn: The folder of the demo's own pools and test splits, which may be in the run folder.

    Raises:
        UserError: The run folder is, contains or is inside one of them, by its path or after resolving links.
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
            f"the run folder {_with_target(config.run)} overlaps with inputs of the run:\n{told}\n"
            "A run deletes and rewrites files in its folder. "
            "Name a folder of its own as `run`, such as runs/NAME."
        )


def _drawn_by_demo(run: Path) -> Path | None:
    data = run / DEMO_DATA
    return data if (data / DRAWN).is_file() else None


def _given(config: RunConfig) -> Iterator[tuple[str, Sequence[Path]]]:
    """The settings that name the user's files or folders, with their local paths."""
    for name, data in config.tasks.items():
        for spec in data.images:
            yield f"tasks.{name}.images", places_of(spec)
        for given in data.pairs:
            yield f"tasks.{name}.pairs", [Path(place) for place in (given.file, given.image_folder) if place]
        if data.test and data.test.startswith(PREFIX):
            yield f"tasks.{name}.test", _local(divided(data.test.removeprefix(PREFIX))[0])
        elif data.test:
            yield f"tasks.{name}.test", [Path(data.test)]
    # Beside the artifacts a file is safe: only they are replaced.
    if config.review and os.path.realpath(config.review.parent) != os.path.realpath(config.run):
        yield "review", [config.review]
    for role in config.roles:
        _, location = split_model(getattr(config, role))
        if not (backend_of(getattr(config, role)).connect or Path(location).is_relative_to(EMBEDDED_MODELS)):
            yield role, _local(location)


def _local(location: str) -> list[Path]:
    return [Path(location).expanduser()] if is_path(location) else []


def _relation(folder: Path, thing: Path) -> str | None:
    """How two paths overlap, in words; None if they do not. Neither needs to exist."""
    pairs = list(product(_names(folder), _names(thing)))
    if any(one == other for one, other in pairs):
        return "is"
    if any(other.is_relative_to(one) for one, other in pairs):
        return "contains"
    return "lies in" if any(one.is_relative_to(other) for one, other in pairs) else None


def _names(path: Path) -> set[Path]:
    """The path as given, followed by its target if it is a link."""
    return {Path(os.path.abspath(path)), Path(os.path.realpath(path))}


def _with_target(path: Path) -> str:
    target = Path(os.path.realpath(path))
    return str(path) if target == path else f"{path} (which leads to {target})"


def refuse_foreign_folder(folder: Path) -> None:
    """Refuses a folder that holds something other than a run.

    Raises:
        UserError: The folder holds files but was never a run folder.
    """
    if not folder.is_dir() or any((folder / mark).exists() for mark in (MARKER, CONFIG)):
        return
    begun = (LOCK, OWNER, MARKER + HALF_WRITTEN)  # a kill may come before the first mark is whole
    others = [entry.name for entry in folder.iterdir() if entry.name not in begun]
    if others:
        raise UserError(
            f"{folder} holds files but is not a run folder: it has no {CONFIG}, but {sorted(others)[0]}. "
            "Name another, or an empty one."
        )


def refuse_other_run(before: RunConfig, now: RunConfig) -> None:
    """Refuses other models than the folder's artifacts were made with; whatever else changed only asks what is new.

    Raises:
        UserError: The two differ in a model, or have no task in common.
    """
    found = [
        f"{role} was {getattr(before, role)}, is {getattr(now, role)}"
        for role in _OF_A_RUN
        if getattr(before, role) != getattr(now, role) and made_with(now, before, role) is False
    ]
    if not before.tasks.keys() & now.tasks.keys():
        found.append(f"tasks was {', '.join(before.tasks)}, is {', '.join(now.tasks)}")
    if found:
        raise UserError(
            f"{now.run} holds a run of another configuration: {'; '.join(found)}.\n"
            "Name another folder as `run`, or add --redo to do again what changed. Answers are kept either way: with "
            "`answers`, several runs share them."
        )
