"""How the student is trained, as settings; `config.py` joins them with the others."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from parityalign.config.base import Settings
from parityalign.config.rates import PartRates
from parityalign.core import known_part


def _weight(said: object, check: ValidatorFunctionWrapHandler) -> object:
    """One sentence for a wrong weight, where pydantic has one for each form that it might have had."""
    try:
        return check(said)
    except ValidationError as problem:
        raise ValueError(
            f"{said!r} is no weight; write a finite number, 0 or more, or two for beginning and end, such as [1, 0.5]"
        ) from problem


_Number = Annotated[float, Field(ge=0)]
Weight = Annotated[_Number | tuple[_Number, _Number], WrapValidator(_weight)]
PRESET = "discrepancy"
"""The objective that stands for `DISCREPANCY`."""
DISCREPANCY: Mapping[str, float] = MappingProxyType({"answer": 1.0, "confidence": 1.0, "reasoning": 1.0})
"""What `objective: discrepancy` stands for: what helped on the embedded benchmarks (docs/results-objectives.md). What
the teacher shows nothing for is left out."""
NEED_RATIONALES = ("reasoning", "coherence")
"""Terms that make use of the teacher's rationales."""
NEED_OBSERVATIONS = ("confidence", "attention")
"""Terms that compare the student with more than the teacher's words."""
NEED_VIEWS = ("consistency",)
"""Terms that compare two views of the same picture."""


def _known_term(name: str) -> str:
    return name if name == PRESET else known_part("objectives")(name)


Term = Annotated[str, AfterValidator(_known_term)]


def _weighed(said: object) -> object:
    return {said: 1.0} if isinstance(said, str) else said


def _unweighed(terms: dict[str, object]) -> object:
    """The other way round."""
    return next(iter(terms)) if list(terms.values()) == [1.0] else terms


class LevelSettings(Settings):
    """How the student is trained on the gaps."""

    objective: Annotated[dict[Term, Weight], BeforeValidator(_weighed), PlainSerializer(_unweighed)] = {"answer": 1.0}
    """A file in `objectives/`, or several with their weights, such as `{answer: 1, confidence: [1, 0.5]}`: from 1 in
    the beginning to 0.5 at the end. `discrepancy` stands for `DISCREPANCY`."""
    divergence: Literal["forward", "reverse", "jensen_shannon"] = "forward"
    """How `confidence` compares the student's next token with the teacher's."""
    method: Literal["full", "lora", "qlora"] = "full"
    """All weights, or small matrices beside the linear layers that are merged in the end; `qlora`: on 4-bit weights."""
    parts: PartRates = PartRates()
    epochs: int = Field(default=3, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps instead of `epochs`: fewer or more."""
    learning_rate: float = Field(default=2e-4, gt=0)
    batch_size: int = Field(default=64, ge=1)
    """Pairs in an optimiser step, however many of them fit into memory."""
    rows_at_once: int | None = Field(default=None, ge=1)
    """Pairs of a step that go through the model together. None: all; halved whenever memory runs out."""
    gradient_checkpointing: bool = False
    """Less memory for about a third more time: what the layers computed is not kept but computed again."""
    liger: bool = True
    """Whether the fused kernels of the package liger-kernel are used where it and a GPU are there."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    replay: float = Field(default=0.5, ge=0, lt=1)
    """Share of the training pairs that the student already had right; 0 is the paper's way."""
    held_out: float = Field(default=0.05, gt=0, lt=1)
    """Share of the pairs kept out of training, for early stopping."""
    patience: int = Field(default=3, ge=1)
    """Looks at the held-out loss without a new best after which training stops."""
    skipped_steps: int = Field(default=100, ge=1)
    """Steps whose loss or gradient is not finite, and which change nothing, after which training stops."""
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: float | None = Field(default=None, gt=0)
    """Weight of what LoRA learns, divided by the rank. None: twice the rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    select: Literal["gaps", "all", "random"] = "gaps"
    """What is trained on besides replay: the gaps, all pairs, or as many pairs as gaps, drawn at random."""

    @model_validator(mode="after")
    def _stands_alone(self) -> Self:
        if "discrepancy" in self.objective and len(self.objective) > 1:
            raise ValueError("objective: discrepancy is a sum of other terms and stands alone; or name the terms")
        if not self.weights:
            raise ValueError("objective has no term with a weight above 0")
        return self

    @property
    def weights(self) -> dict[str, tuple[float, float]]:
        """The weight of each term of the objective, in the beginning and at the end."""
        given = DISCREPANCY if "discrepancy" in self.objective else self.objective
        ends = {name: weight if isinstance(weight, tuple) else (weight, weight) for name, weight in given.items()}
        return {name: pair for name, pair in ends.items() if any(pair)}

    @property
    def stands_for(self) -> dict[str, dict[str, float]]:
        """What `discrepancy` stands for where it is the objective: results hang on that, and it may change."""
        return {"level.discrepancy": dict(DISCREPANCY)} if "discrepancy" in self.objective else {}

    @property
    def needs_rationales(self) -> bool:
        """Whether a term makes use of the teacher's rationales."""
        return not self.weights.keys().isdisjoint(NEED_RATIONALES)

    @property
    def needs_views(self) -> bool:
        """Whether a term looks at every picture a second time."""
        return not self.weights.keys().isdisjoint(NEED_VIEWS)

    @property
    def needs_observations(self) -> list[str]:
        """The terms that compare the student with more than the teacher's words."""
        return [name for name in self.weights if name in NEED_OBSERVATIONS]

    @property
    def needs_signals(self) -> bool:
        """Whether a term compares the student with what the teacher showed."""
        return not self.weights.keys() <= {"answer", *NEED_VIEWS}
