"""The base class of every section of the configuration."""

from pydantic import BaseModel, ConfigDict, field_validator

LARGEST = 2**53
"""Whole numbers above are refused: torch, JSON and NumPy would round them or raise, late in a run."""


class SpeedOnly:
    """Marks a setting, `Annotated[int, SpeedOnly]`, that affects only speed and memory.

    Artifacts do not depend on it, so changing it redoes no work.
    """


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
