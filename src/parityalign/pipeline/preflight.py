"""How a run begins or goes on: what is looked at before anything is computed, so that no hour of work is lost to it.

Like `pipeline.py` this module joins rooms.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from parityalign import models, training
from parityalign.config import LoadingSettings, RunConfig, as_yaml, read_config, split_model
from parityalign.core import CONFIG, Progress, RunFolder, UserError, missing_package, write_whole
from parityalign.models import check_model_folder, commit_of, is_path
from parityalign.pipeline.run import Run

_ROLES = ("teacher", "student")
_PACKAGES_OF_METHOD = {"lora": ("peft",), "qlora": ("peft", "bitsandbytes")}


@contextmanager
def open_run_folder(
    config: RunConfig, progress: Progress, *, only: str | None = None, redo: bool = False
) -> Iterator[Run]:
    """Locks the run folder, writes the configuration into it and joins the parts.

    Args:
        config: The configuration; its `run` names the folder.
        progress: Told of every step.
        only: The one stage that may work.
        redo: Whether the results of another configuration may be worked over.

    Raises:
        UserError: The folder is in use, is no run folder, or holds a run of another configuration.
    """
    refuse_foreign_folder(config.run)
    path = config.run / CONFIG
    before = read_config(path) if path.exists() else None
    if before and not redo:
        refuse_other_run(before, config)
    config = _pinned(config, before)
    _refuse_unusable_models(config, before)
    with RunFolder(config.run) as folder:
        if before != config:
            write_whole(path, as_yaml(config, folder.path))
        yield Run(folder, config, progress, only=only)


def _pinned(config: RunConfig, before: RunConfig | None) -> RunConfig:
    """The configuration with the commit of each model on the hub: the one that the run began with, if it did."""
    loadings = {}
    for role in _ROLES:
        loading, spec = getattr(config.loading, role), getattr(config, role)
        kind, location = split_model(spec)
        if kind == "hf" and not is_path(location) and not loading.commit:
            began: LoadingSettings | None = getattr(before.loading, role) if before else None
            same = began and getattr(before, role) == spec and began.revision == loading.revision
            kept = began.commit if began and same else None
            loadings[role] = loading.model_copy(update={"commit": kept or commit_of(location, loading)})
    return config.model_copy(update={"loading": config.loading.model_copy(update=loadings)})


def _refuse_unusable_models(config: RunConfig, before: RunConfig | None) -> None:
    """What would be found wrong only after hours of the teacher's work; looked at closely when a run begins."""
    for role in _ROLES:
        spec, loading = getattr(config, role), getattr(config.loading, role)
        kind, location = split_model(spec)
        if kind == "hf":
            check_model_folder(location)
            if not before or (spec, loading) != (getattr(before, role), getattr(before.loading, role)):
                models.check_model(location, loading)
    for package in _PACKAGES_OF_METHOD.get(config.level.method, ()):
        if find_spec(package) is None:
            raise missing_package(f"level.method: {config.level.method}", package, package)
    kind, location = split_model(config.student)
    if kind == "hf" and (not before or before.level != config.level):
        training.refuse_student(location, config.loading.student, config.level)
    if config.level.method == "qlora" and (not before or before.level.method != "qlora"):
        training.refuse_method("qlora")


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
