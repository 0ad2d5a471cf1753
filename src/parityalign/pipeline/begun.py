"""What is decided once, when a run begins, and stands in its own `run.yaml` from then on.

The commits of models on the hub, a limit of pixels for families without one, and what `auto` in `level` comes to.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parityalign import models, training
from parityalign.config import (
    AUTOMATIC,
    LevelSettings,
    LoadingSettings,
    RunConfig,
    StudentFacts,
    backend_of,
    decide_level,
    is_path,
    refuse_high_rate,
    results_of,
    split_model,
)
from parityalign.core import BEGUN, MANIFEST, STUDENT_FOLDER, UserError, read_manifest

_BEFORE_AUTO = decide_level(LevelSettings(), None)
"""What was done by default before there was `auto`."""


def pinned(config: RunConfig, before: RunConfig | None) -> RunConfig:
    """The configuration with the commit of each model on the hub, and with limits of pixels that the run began with.

    Args:
        config: The configuration.
        before: The configuration that the run folder was used with before.

    Raises:
        UserError: A model is not on the hub, or the hub cannot be reached.
    """
    loadings: dict[str, LoadingSettings] = {}
    for role in config.roles:
        loading: LoadingSettings = getattr(config.loading, role)
        began, (_, location) = _began(config, before, role), split_model(getattr(config, role))
        known: dict[str, object] = {}
        if began and not loading.max_pixels and began.max_pixels_by_default:
            known |= {"max_pixels": began.max_pixels, "max_pixels_by_default": True}
        if backend_of(getattr(config, role)).hub and not is_path(location) and not loading.commit:
            known["commit"] = (began.commit if began else None) or models.commit_of(location, loading)
        loadings[role] = loading.model_copy(update=known)
    return config.model_copy(update={"loading": config.loading.model_copy(update=loadings)})


def with_pixel_limits(config: RunConfig, before: RunConfig | None) -> RunConfig:
    """The configuration with a limit of pixels for models that take pictures of nearly any size, where none is set.

    Args:
        config: The configuration.
        before: The configuration that the run began with: what it then had no limit for stays so.

    Raises:
        UserError: A model's processor cannot be opened.
    """
    loadings: dict[str, LoadingSettings] = {}
    for role in config.roles:
        loading, spec = getattr(config.loading, role), getattr(config, role)
        if backend_of(spec).hub and not loading.max_pixels and not _began(config, before, role):
            limit = _usual_limit(spec, loading)
            known = {"max_pixels": limit, "max_pixels_by_default": limit is not None}
            loadings[role] = loading.model_copy(update=known)
    return config.model_copy(update={"loading": config.loading.model_copy(update=loadings)})


def _usual_limit(spec: str, loading: LoadingSettings) -> int | None:
    try:
        processor: Any = models.open_processor(split_model(spec)[1], loading)
    except UserError:
        if backend_of(spec).serve:  # the program that serves it may know families that are not known here
            return None
        raise
    limit: int | None = models.usual_limit(processor.image_processor)
    return limit


def _began(config: RunConfig, before: RunConfig | None, role: str) -> LoadingSettings | None:
    """How the same model was loaded when the run began."""
    if before is None:
        return None
    loading: LoadingSettings = getattr(before.loading, role)
    if loading.revision != getattr(config.loading, role).revision:
        return None
    same = getattr(before, role) == getattr(config, role) or made_with(config, before, role)
    return loading if same else None


def made_with(config: RunConfig, before: RunConfig, role: str) -> bool | None:
    """Whether the run's artifacts were made with a model of this content, wherever it lay; None: with none.

    Args:
        config: The configuration as the user wrote it.
        before: The configuration that the run folder was used with before.
        role: Of the model.
    """
    label = f"{role} model"
    made = {(read_manifest(path.parent) or {"inputs": {}})["inputs"].get(label) for path in manifests(config.run)}
    if not made - {None}:
        return None
    loading: LoadingSettings = getattr(config.loading, role)
    began: LoadingSettings = getattr(before.loading, role)
    if not loading.max_pixels and began.max_pixels_by_default:
        loading = loading.model_copy(update={"max_pixels": began.max_pixels})
    return made <= {None, models.fingerprint(getattr(config, role), loading, config.server, config.engine)}


def manifests(run: Path) -> Iterator[Path]:
    """Those of the run's artifacts."""
    return run.glob(f"*/{MANIFEST}")


def with_decided(config: RunConfig, before: RunConfig | None) -> RunConfig:
    """The configuration with a value for each setting of `level` that is `auto`: those that the run began with, if any.

    Args:
        config: The configuration.
        before: The configuration that the run folder was used with before.

    Raises:
        UserError: The student has no configuration.
    """
    if not config.level.undecided:
        return config
    kept = _begun_with(config, before) if before else None
    return config.model_copy(update={"level": kept or decide_level(config.level, _facts(config))})


def refuse_rate(config: RunConfig) -> None:
    """Refuses a learning rate far above what is usual for the student.

    Raises:
        UserError: It is.
    """
    refuse_high_rate(config.level, _facts(config))


def _facts(config: RunConfig) -> StudentFacts | None:
    """None for a student of which only its backend knows anything."""
    if not backend_of(config.student).trainable:
        return None
    return training.student_facts(split_model(config.student)[1], config.loading.student)


def _begun_with(config: RunConfig, before: RunConfig) -> LevelSettings | None:
    """The decided settings of a run that asks for the same; None: it has to be decided anew."""
    now, then = config.level, before.level
    given = set(AUTOMATIC) - set(now.undecided)
    same = config.student == before.student and all(getattr(now, name) == getattr(then, name) for name in given)
    if not same or then.undecided:
        return None
    # A student that was trained before there was `auto` is not trained anew for it.
    old = not then.automatic and all(getattr(then, name) == getattr(_BEFORE_AUTO, name) for name in now.undecided)
    chosen = {name: getattr(then, name) for name in now.undecided}
    kept = now.model_copy(update={**chosen, "automatic": then.automatic})
    untouched = old and _levelled(config) and results_of(kept) == results_of(then)
    return kept if untouched or set(then.automatic) == set(now.undecided) else None


def _levelled(config: RunConfig) -> bool:
    """Whether training in the run folder has begun."""
    return any((config.run / STUDENT_FOLDER / name).is_file() for name in (MANIFEST, BEGUN))
