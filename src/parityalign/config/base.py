"""What every section of the configuration is."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A part of the configuration; a key that it does not know is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
