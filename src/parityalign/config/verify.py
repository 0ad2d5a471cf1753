"""The section `verify`: which filters a run has, by the names of their files in `stages/filters/`."""

from typing import Annotated

from pydantic import AfterValidator, Field

from parityalign.config.base import Settings
from parityalign.config.model_specs import known_model
from parityalign.core import known_part


class VerifySettings(Settings):
    """What pairs, and gaps, are dropped for although identify would take them; what is off has no part in a run.

    The filters are used in this order: what costs nothing comes first.
    """

    same_question: bool = False
    """Drop a pair whose question another pair on the same picture asks too, perhaps in other words."""
    question_limit: int | None = Field(default=None, ge=1)
    """Keep at most so many pairs of a task whose questions are the same but for their wording. None: all."""
    least_likely: float = Field(default=0.1, ge=0, lt=1)
    """Drop this share of each task's gaps: those whose question and answer the teacher was least likely to write. 0:
    none."""
    least_sure: float = Field(default=0.1, ge=0, lt=1)
    """Drop this share of each task's gaps: those whose answer the teacher is least sure of. 0: none."""
    re_answers: int = Field(default=0, ge=0, le=100)
    """Drop a gap unless so many drawn answers of the teacher agree with it, each a question. 0: none is drawn."""
    blank_picture: bool = False
    """Drop a gap that the teacher answers the same about a grey picture: a question for each."""
    visual_advantage: float = Field(default=0.0, ge=0, lt=1)
    """Drop this share of each task's gaps: those whose answer the picture makes likelier by the least. The teacher
    scores each answer twice, which a served one cannot. 0: none."""
    answerable: bool = False
    """Drop a gap whose question the teacher says cannot be answered from the picture: a question for each."""
    second_teacher: Annotated[str, AfterValidator(known_model)] | None = None
    """Another model, named as `teacher` is: drop a gap unless its own answer agrees with the pair too, a question for
    each. None: there is none."""

    def switched_on(self) -> dict[str, object]:
        """The settings that do something, by the names of their filters, in the order of use; a model is only there."""
        on = {name: value for name, value in self.model_dump().items() if value}
        return on | ({"second_teacher": True} if self.second_teacher else {})


def foreign_filter(name: str) -> str:
    """A filter of another package, for a setting; ValueError for one that has a setting here, or that is not there."""
    if name in VerifySettings.model_fields:
        raise ValueError(f"the filter {name!r} comes with parityalign; it is set by 'verify.{name}'")
    return known_part("filters")(name)
