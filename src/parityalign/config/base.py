"""The base class of every section of the configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    WrapSerializer,
    field_validator,
)

LARGEST = 2**53
"""Whole numbers above are refused: torch, JSON and NumPy would round them or raise, late in a run."""


def _none_for_auto(said: object) -> object:
    return None if said == AUTO else said


def _auto_for_none(value: object, written: SerializerFunctionWrapHandler) -> object:
    return AUTO if value is None else written(value)


def as_section(said: object) -> object:
    """What a section that may be left out is given as: `true` is one with its defaults, `false` none."""
    return {True: {}, False: None}[said] if isinstance(said, bool) else said


AUTO = "auto"
T = TypeVar("T")
Auto = Annotated[T | None, BeforeValidator(_none_for_auto), WrapSerializer(_auto_for_none)]
"""A setting that may be `auto`: None until the size of the student (`automatic.py`) or the machine decides it."""


class SpeedOnly:
    """Marks a setting, `Annotated[int, SpeedOnly]`, that affects only speed and memory.

    Artifacts do not depend on it, so changing it redoes no work.
    """


class Later:
    """Marks a setting that an earlier version did not have, with what that version did as its default.

    Artifacts depend on it only where it is another: those of the earlier version stay as they are.
    """


@dataclass(frozen=True)
class SameAs:
    """Marks a setting, `Annotated[str, SameAs("auto", "gaps")]`, one value of which gives the results of another.

    Manifests name the other one for both, so a change from one to the other redoes no work.
    """

    value: object
    other: object
    """What manifests say."""


class Settings(BaseModel):
    """A section of the configuration; unknown keys and numbers that are not finite, or absurdly large, are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _countable(cls, value: object) -> object:
        if isinstance(value, int) and value > LARGEST:
            raise ValueError(f"is larger than {LARGEST}")
        return value


def speed_only(kind: type[Settings]) -> frozenset[str]:
    """The names of a section's settings that are marked `SpeedOnly`."""
    return frozenset(name for name, field in kind.model_fields.items() if SpeedOnly in field.metadata)


def results_of(settings: Settings, mode: Literal["json", "python"] = "json") -> dict[str, object]:
    """The settings of a section that results depend on, with their values: what a manifest says of it."""
    fields = type(settings).model_fields.items()
    as_before = {name for name, field in fields if Later in field.metadata and getattr(settings, name) == field.default}
    named = settings.model_dump(mode=mode, exclude={*speed_only(type(settings)), *as_before})
    return {name: _as_other(value, type(settings).model_fields[name].metadata) for name, value in named.items()}


def _as_other(value: object, marks: Sequence[object]) -> object:
    return next((each.other for each in marks if isinstance(each, SameAs) and each.value == value), value)
