"""How the teacher writes pairs: draws, how they are decoded, quotas."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from parityalign.config.base import Later, Settings, SpeedOnly
from parityalign.core import Decoding

_Share = Annotated[float | None, Field(gt=0, le=1)]


class AnnotateSettings(Settings):
    """How the teacher writes pairs."""

    pairs_per_image: int = Field(default=1, ge=1)
    """Draws for each image; repeats of the same pair are dropped."""
    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy: the same pair on every draw."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Draw each token among the likeliest that have this probability together; 1: among all. A run that was begun with
    the former default, 1, keeps it (`tasks.settled`)."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw each token among so many likeliest. None: among all."""
    kinds_in_turn: Annotated[bool, Later] = False
    """Whether draws on an image go through all kinds of questions before one comes again. False: the kind of each draw
    is drawn by itself, as earlier versions did. A new run is given `true` (`tasks.settled`)."""
    max_new_tokens: int = Field(default=96, ge=1)
    batch_size: Annotated[int, SpeedOnly] = Field(default=128, ge=1)
    most_yes_no: _Share = None
    """Most pairs of a task whose answer is yes or no, as a share of its draws; those beyond are dropped. None: any."""
    most_numbers: _Share = None
    """Likewise whose answer is a number."""
    most_other: _Share = None
    """Likewise with any other answer."""
    most_alike: _Share = None
    """Likewise whose questions begin with the same two words."""
    extra_draws: _Share = None
    """Most further draws, as a share of a task's draws, for images and kinds of questions with fewer pairs than were
    drawn for. None: none."""

    @property
    def decoding(self) -> Decoding:
        """How the teacher picks tokens."""
        return Decoding(self.max_new_tokens, self.temperature, self.top_p, self.top_k, pair=True)

    def most_further(self, draws: int) -> int:
        """How many further draws there may be after so many ordinary ones."""
        return int((self.extra_draws or 0) * draws)

    @model_validator(mode="after")
    def _further_draws_differ(self) -> Self:
        if self.temperature == 0 and self.extra_draws:
            raise ValueError(
                f"extra_draws is {self.extra_draws}, but at temperature 0 a further draw writes the same pair. Leave "
                "it out, or set a temperature above 0"
            )
        return self

    @model_validator(mode="after")
    def _draws_differ(self) -> Self:
        if self.temperature == 0 and self.pairs_per_image > 1:
            raise ValueError(
                f"pairs_per_image is {self.pairs_per_image}, but at temperature 0 every draw writes the same "
                "pair. Set one pair per image, or a temperature above 0"
            )
        return self
