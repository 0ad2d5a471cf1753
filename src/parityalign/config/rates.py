"""How fast the parts of the student learn, as settings."""

from typing import Self

from pydantic import Field, model_validator

from parityalign.config.base import Settings


class PartRates(Settings):
    """How fast each part of the student learns: factors on `learning_rate`; 0 leaves a part as it is."""

    vision: float = Field(default=1.0, ge=0)
    connector: float = Field(default=1.0, ge=0)
    """What turns the vision tower's features into tokens of the language model."""
    language: float = Field(default=1.0, ge=0)
    """The language model with its embeddings and output head."""

    @model_validator(mode="after")
    def _something_learns(self) -> Self:
        if not self.vision + self.connector + self.language:
            raise ValueError("vision, connector and language are all 0, so nothing would be trained")
        return self
