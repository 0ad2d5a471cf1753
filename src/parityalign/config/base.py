"""What every section of the configuration is."""

from pydantic import BaseModel, ConfigDict


class SpeedOnly:
    """Marks a setting, `Annotated[int, SpeedOnly]`, that decides how fast a stage is and how much memory it takes.

    It is no part of what an artifact is made of: changing it throws no work away.
    """


class Settings(BaseModel):
    """A part of the configuration; a key that it does not know is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def speed_only(kind: type[Settings]) -> frozenset[str]:
    """The names of a section's settings that are marked `SpeedOnly`."""
    return frozenset(name for name, field in kind.model_fields.items() if SpeedOnly in field.metadata)
