"""Settings that are `auto` are decided once, when a run begins: its own `run.yaml` says then what they came to."""

from parityalign import training
from parityalign.config import (
    AUTOMATIC,
    LevelSettings,
    RunConfig,
    StudentFacts,
    backend_of,
    decide,
    refuse_high_rate,
    split_model,
)
from parityalign.core import BEGUN, MANIFEST

_BEFORE_AUTO = decide(LevelSettings(), None)
"""What was done by default before there was `auto`."""


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
    return config.model_copy(update={"level": kept or decide(config.level, _facts(config))})


def refuse_rate(config: RunConfig) -> None:
    """Refuses a learning rate far above what is usual for the student.

    Raises:
        UserError: It is.
    """
    refuse_high_rate(config.level, _facts(config))


def _facts(config: RunConfig) -> StudentFacts | None:
    """None for a student of which only its backend knows anything."""
    if not backend_of(config.student).hub:
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
    if set(then.automatic) != set(now.undecided) and not (old and _levelled(config)):
        return None
    chosen = {name: getattr(then, name) for name in now.undecided}
    return now.model_copy(update={**chosen, "automatic": then.automatic})


def _levelled(config: RunConfig) -> bool:
    """Whether training in the run folder has begun."""
    return any((config.run / "student" / name).is_file() for name in (MANIFEST, BEGUN))
