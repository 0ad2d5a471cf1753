"""Settings of training; `schema.py` joins them with the others."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from parityalign.config.base import Auto, Later, SameAs, Settings, SpeedOnly
from parityalign.core import UserError, declared, described, known_part

NEEDS = frozenset({"distribution", "attention", "rationale", "view"})
"""What terms of the loss may need besides the answers: the teacher's token probabilities, both models' attention, the
teacher's rationale, and another view of each picture."""
OBSERVED = frozenset({"distribution", "attention"})
"""Those that need a model scored teacher-forced in this process."""
PRESET = "discrepancy"
"""The name of the preset objective `DISCREPANCY`."""
DISCREPANCY: Mapping[str, float] = MappingProxyType({"answer": 1.0, "confidence": 1.0, "reasoning": 1.0})
"""The terms of `objective: discrepancy`, which helped on the embedded benchmarks (docs/results-objectives.md). Terms
without teacher signals are left out."""
_ROOM = "losses"


def needs_of(term: str) -> frozenset[str]:
    """What a term of the loss needs besides the answers (a subset of `NEEDS`), from its module.

    Raises:
        UserError: The module's `NEEDS` cannot be read without importing it, or holds an unknown need.
    """
    said = declared(_ROOM, term, "NEEDS")
    if said is None:
        return frozenset()
    if not isinstance(said, frozenset | set | list | tuple) or any(each not in (*NEEDS,) for each in said):
        known = ", ".join(sorted(NEEDS))
        raise UserError(f"{described(_ROOM, term)} has NEEDS = {said!r}. Expected: a set of some of {known}.")
    return frozenset(said)


def _known_term(name: str) -> str:
    if name == PRESET:
        return name
    known_part(_ROOM)(name)
    try:
        needs_of(name)
    except UserError as problem:
        raise ValueError(str(problem)) from problem
    return name


def _weight(said: object, check: ValidatorFunctionWrapHandler) -> object:
    """One message for a wrong weight, where pydantic gives one per allowed form."""
    try:
        found: object = check(said)
    except ValidationError as problem:
        raise ValueError(
            f"{said!r} is not a weight; write a finite number, 0 or more, or two for start and end, such as [1, 0.5]; "
            "or with the term's own settings, such as {weight: 1, SETTING: ...}"
        ) from problem
    return found.weight if isinstance(found, WeightedTerm) and not found.model_extra else found


_Number = Annotated[float, Field(ge=0)]
Weight = _Number | tuple[_Number, _Number]
"""The weight of a term, constant or at the start and the end of training."""


class WeightedTerm(Settings):
    """A term's weight, and the term's own settings, declared by its module as `SETTINGS`."""

    model_config = ConfigDict(extra="allow")

    weight: Weight = 1.0


Term = Annotated[str, AfterValidator(_known_term)]


def _weighed(said: object) -> object:
    return {said: 1.0} if isinstance(said, str) else said


def _unweighed(terms: dict[str, object]) -> object:
    """The other way round."""
    return next(iter(terms)) if list(terms.values()) == [1.0] else terms


Method = Literal["full", "lora", "qlora"]


class LrMultipliers(Settings):
    """Factors on `learning_rate` for each part of the student; 0 freezes a part."""

    vision: float = Field(default=1.0, ge=0)
    connector: float = Field(default=1.0, ge=0)
    """The projector from the vision tower's features to tokens of the language model."""
    language: float = Field(default=1.0, ge=0)
    """The language model with its embeddings and output head."""

    @model_validator(mode="after")
    def _something_learns(self) -> Self:
        if not self.vision + self.connector + self.language:
            raise ValueError("vision, connector and language are all 0, so nothing would be trained")
        return self


class Decided(NamedTuple):
    """The settings that may be `auto`, when they are decided."""

    method: Method
    learning_rate: float
    lr_multipliers: LrMultipliers
    epochs: int


AUTOMATIC = Decided._fields
"""The names of these settings."""


Reporter = Literal["tensorboard", "trackio", "wandb", "mlflow"]


def _as_list(said: object) -> object:
    """One reporter may stand alone."""
    return (said,) if isinstance(said, str) else said


class LevelSettings(Settings):
    """How the student is trained on the gaps."""

    objective: Annotated[
        dict[Term, Annotated[Weight | WeightedTerm, WrapValidator(_weight)]],
        BeforeValidator(_weighed),
        PlainSerializer(_unweighed),
    ] = {"answer": 1.0}
    """A file in `training/losses/`, or several with their weights, such as `{answer: 1, confidence: [1, 0.5]}`: from 1
    at the start to 0.5 at the end. A term may have settings of its own: `{confidence: {weight: 1, divergence:
    reverse}}`. `discrepancy` is the preset `DISCREPANCY`."""
    method: Auto[Method] = None
    """`full`: all weights; `lora`: low-rank adapters, merged at the end; `qlora`: adapters on 4-bit weights; `auto`:
    `full` or `lora`, by the student's size."""
    lr_multipliers: Auto[LrMultipliers] = None
    """`auto`: the vision tower stays as it is, except of small students."""
    epochs: Auto[Annotated[int, Field(ge=1)]] = None
    max_steps: int | None = Field(default=None, ge=1)
    """Number of optimiser steps, in place of `epochs`."""
    learning_rate: Auto[Annotated[float, Field(gt=0)]] = None
    """`auto`: what is usual for the student's size and the method."""
    allow_high_rate: Annotated[bool, SpeedOnly] = False
    """Whether `learning_rate` may be far above what is usual."""
    automatic: Annotated[tuple[Literal["method", "learning_rate", "lr_multipliers", "epochs"], ...], SpeedOnly] = ()
    """The settings that `auto` decided when the run began; written into the run's own `run.yaml`."""
    optimiser: Annotated[Literal["adamw", "adamw_8bit", "adafactor"], Later] = "adamw"
    """`adamw_8bit` keeps its averages in 8 bits (needs bitsandbytes), `adafactor` hardly any."""
    batch_size: int = Field(default=64, ge=1)
    """Pairs per optimiser step, split into micro-batches as memory requires."""
    questions_together: Annotated[bool, Later] = False
    """Whether a step takes all pairs about a picture, which are faster together, rather than pairs in any order."""
    micro_batch_size: Annotated[int | None, SpeedOnly] = Field(default=None, ge=1)
    """Most pairs per forward pass. None: as many as memory takes, by their tokens."""
    processes: Annotated[Auto[Annotated[int, Field(ge=1, le=1024)]], SpeedOnly] = None
    """Processes that train together, each on its share of a step's pairs. `auto`: one for each GPU if there are
    several, else this one alone."""
    sharded: Annotated[bool, SpeedOnly] = False
    """Whether these processes divide weights, gradients and the optimiser's averages among them (FSDP2), so that a
    student is trained whole that one GPU does not hold so; `method: full` and `optimiser: adamw` alone."""
    gradient_checkpointing: Annotated[bool, SpeedOnly] = False
    """Recompute activations in the backward pass: less memory for about a third more time."""
    compile: Annotated[Auto[bool], SpeedOnly] = None
    """Whether torch compiles the student's layers on a GPU, which takes a minute. `auto`: where training is long enough
    to win it back, and not in 4 bits. Where it fails, training goes on without."""
    liger: Annotated[bool, SpeedOnly] = True
    """Use those fused kernels of the package liger-kernel that fit, if it is installed and there is a GPU; not in
    compiled layers, whose kernels are fused already."""
    report_to: Annotated[tuple[Reporter, ...], BeforeValidator(_as_list), SpeedOnly] = ()
    """Where the curves of the training are shown as well; TensorBoard's lie in the run folder (`tensorboard/`). Others
    have settings of their own, in the environment."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    replay: float | None = Field(default=None, ge=0, lt=1)
    """Share of training pairs that the student already had right; 0 as in the paper. None: the pool's own share of
    such pairs, between 0.5 and 0.8."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of the pool's images that is held out, before anything is chosen, for early stopping and acceptance."""
    held_out_pairs: int = Field(default=1000, ge=1)
    """Most pairs of these images that judge; more are sampled."""
    patience: int = Field(default=3, ge=1)
    """Early stopping: stop after this many evaluations of the held-out loss without a new best."""
    interpolate: Annotated[bool, Later] = False
    """Whether weights a quarter, half and three quarters of the way from the student's to the best checkpoint's are
    looked at too, and those with the lowest held-out loss taken (WiSE-FT). A new run is given `true`
    (`tasks.settled`)."""
    skipped_steps: int = Field(default=100, ge=1)
    """Stop after this many steps that were skipped because loss or gradient was not finite."""
    lora_rank: int = Field(default=16, ge=1, le=65536)
    lora_alpha: float | None = Field(default=None, gt=0)
    """LoRA's alpha: the adapter's output is scaled by alpha / rank. None: twice the rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    keep_adapter: Annotated[bool, Later] = False
    """Whether the adapter stays in the folder `adapter` of the levelled student, beside the weights that it is merged
    into. A student that is there without it is trained again. Where `auto` comes to training all weights there is
    none."""
    select: Annotated[Literal["gaps", "all", "random", "auto"], SameAs("auto", "gaps")] = "auto"
    """What is trained on: gaps and replay, all usable pairs, or as many drawn from these at random; `auto`: gaps and as
    much replay as the pool has, and the run says how much that was."""
    target: Literal["teacher"] | None = None
    """The answers that are learnt where the teacher, asked again, agrees with the pair: its own answer to the answer
    prompt (`teacher`). None: the pair's."""

    @model_validator(mode="after")
    def _has_an_adapter(self) -> Self:
        if self.keep_adapter and self.method == "full" and "method" not in self.automatic:
            raise ValueError(
                "keep_adapter is true, but `method: full` trains all weights and no adapter. Set `method: lora`, or "
                "leave it out"
            )
        return self

    @model_validator(mode="after")
    def _stands_alone(self) -> Self:
        if PRESET in self.objective and (len(self.objective) > 1 or self.own_settings):
            raise ValueError(
                "objective: discrepancy is a preset and takes no other terms or settings; list the terms instead"
            )
        if not self.weights:
            raise ValueError("objective has no term with a weight above 0")
        return self

    @model_validator(mode="after")
    def _can_be_divided(self) -> Self:
        if not self.sharded or self.may_be_sharded:
            return self
        if self.method != "full" or self.optimiser != "adamw":
            raise ValueError(
                "sharded is on, which takes method: full and optimiser: adamw. Adapters (method: lora) are small "
                "enough for one GPU: leave sharded out"
            )
        raise ValueError(
            "sharded is on, and the objective has a term that needs rationales or further views, for which some "
            "batches pass through the student more often than others. Leave one of them out"
        )

    @property
    def may_be_sharded(self) -> bool:
        """Whether `sharded` may be on with the other settings."""
        alike = not (self.needs_rationales or self.needs_views)  # each batch makes the same passes
        return self.method == "full" and self.optimiser == "adamw" and alike

    @property
    def undecided(self) -> tuple[str, ...]:
        """The settings that are `auto` still."""
        return tuple(name for name in AUTOMATIC if getattr(self, name) is None)

    @property
    def decided(self) -> Decided:
        """The settings that may be `auto`.

        Raises:
            ValueError: One still is.
        """
        method, rate, multipliers, epochs = self.method, self.learning_rate, self.lr_multipliers, self.epochs
        if method is None or rate is None or multipliers is None or epochs is None:
            raise ValueError(f"level.{self.undecided[0]} is auto and was not decided by the student's size")
        return Decided(method, rate, multipliers, epochs)

    def steps(self, pairs: int) -> int:
        """Optimiser steps on so many training pairs, unless training stops early."""
        return self.max_steps or self.decided.epochs * math.ceil(pairs / self.batch_size)

    @property
    def weights(self) -> dict[str, tuple[float, float]]:
        """The weight of each term of the objective, at the start and at the end."""
        said = {name: each.weight if isinstance(each, WeightedTerm) else each for name, each in self.objective.items()}
        given = DISCREPANCY if PRESET in said else said
        ends = {name: weight if isinstance(weight, tuple) else (weight, weight) for name, weight in given.items()}
        return {name: pair for name, pair in ends.items() if any(pair)}

    @property
    def own_settings(self) -> dict[str, dict[str, object]]:
        """The terms' own settings, by term; each term's module checks them."""
        terms = {name: each for name, each in self.objective.items() if isinstance(each, WeightedTerm)}
        return {name: dict(each.model_extra or {}) for name, each in terms.items()}

    @property
    def stands_for(self) -> dict[str, dict[str, float]]:
        """The terms of the preset `discrepancy` if it is the objective: results depend on them, and they may change."""
        return {"level.discrepancy": dict(DISCREPANCY)} if PRESET in self.objective else {}

    @property
    def needs(self) -> frozenset[str]:
        """What the terms need besides the answers; a subset of `NEEDS`."""
        return frozenset().union(*map(needs_of, self.weights))

    @property
    def needs_rationales(self) -> bool:
        """Whether a term uses the teacher's rationales."""
        return "rationale" in self.needs

    @property
    def needs_views(self) -> bool:
        """Whether a term needs a second view of every picture."""
        return "view" in self.needs

    @property
    def needs_observations(self) -> list[str]:
        """The terms that need more of the teacher than its text."""
        return [name for name in self.weights if needs_of(name) & OBSERVED]

    @property
    def needs_signals(self) -> bool:
        """Whether a term compares the student with the teacher's signals."""
        return bool(self.needs - {"view"})
