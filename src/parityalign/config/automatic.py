"""What `auto` in `level` comes to: by the student's size, and by the method where that is given.

The rates are those that vision-language models of such sizes are usually trained with further: 1e-5 to 2e-5 for all
weights, with the vision tower as it is (LLaVA-1.5, arXiv:2310.03744; the paper trains at 1e-5), ten times as much for
LoRA. Rates far above make a trained model forget more than a few thousand pairs can teach it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from parityalign.config.training import LevelSettings, LrMultipliers, Method
from parityalign.core import UserError


class StudentFacts(NamedTuple):
    """What decides of a student how it is usually trained."""

    parameters: int
    parts_known: bool
    """Whether its vision tower, connector and language model can be told apart, so that one of them can be frozen."""


class Usual(NamedTuple):
    """How students of a size are usually trained."""

    below: float
    """Parameters: the row is for students with fewer."""
    method: Method
    rates: Mapping[Method, float]
    """The learning rate, by method."""
    vision: float
    """The vision tower's factor on it; 0: it stays as it is."""
    epochs: int


def _rates(full: float, adapters: float) -> Mapping[Method, float]:
    return MappingProxyType({"full": full, "lora": adapters, "qlora": adapters})


SMALL = 100_000_000
"""Parameters from which a student is one that others have trained before, and high rates are refused."""
TABLE = (
    Usual(SMALL, "full", _rates(2e-4, 2e-4), 1.0, 3),
    Usual(1e9, "full", _rates(2e-5, 1e-4), 0.0, 2),
    Usual(float("inf"), "lora", _rates(1e-5, 1e-4), 0.0, 2),
)
"""By size, smallest first."""
HIGHEST: Mapping[Method, float] = _rates(1e-4, 1e-3)
"""Rates above are refused for students that are not small."""


def decide_level(level: LevelSettings, student: StudentFacts | None) -> LevelSettings:
    """The settings with a value for each that is `auto`.

    Args:
        level: The settings.
        student: None where nothing is known of it, as of models that are not from the hub; it counts as small.
    """
    if not level.undecided:
        return level
    row = next(row for row in TABLE if student is None or student.parameters < row.below)
    tower = row.vision if student is None or student.parts_known else 1.0
    values = {
        "method": row.method,
        "learning_rate": row.rates[level.method or row.method],
        "lr_multipliers": LrMultipliers(vision=tower),
        "epochs": row.epochs,
    }
    chosen = {name: values[name] for name in level.undecided}
    return level.model_copy(update={**chosen, "automatic": level.undecided})


def refuse_high_rate(level: LevelSettings, student: StudentFacts | None) -> None:
    """Refuses a learning rate that would make a student forget what it knows.

    The connector's own rate may be any: it is small, and often trained at 1e-3.

    Raises:
        UserError: The rate of language model or vision tower is far above what is usual for the size and the method.
    """
    if student is None or student.parameters < SMALL or level.allow_high_rate:
        return
    method, rate, multipliers, _ = level.decided
    highest, reached = HIGHEST[method], rate * max(multipliers.vision, multipliers.language)
    if reached > highest:
        usual = decide_level(LevelSettings(method=method), student).learning_rate
        raise UserError(
            f"level.learning_rate is {rate:g}, which with level.method: {method} is far above the usual {usual:g} for "
            f"a student of {student.parameters:,} parameters: above {highest:g} it forgets more than it learns.\n"
            "Set level.learning_rate: auto, or level.allow_high_rate: true if you mean it."
        )


def level_in_words(level: LevelSettings) -> str:
    """How a student is trained with these settings, in one line."""
    method, rate, multipliers, epochs = level.decided
    ends = f"{level.max_steps:,} steps" if level.max_steps else "1 epoch" if epochs == 1 else f"{epochs} epochs"
    factors = {name: factor for name, factor in multipliers if factor != 1}
    parts = [f"{name} frozen" if not factor else f"{name} at {factor:g} times that" for name, factor in factors.items()]
    said = ", ".join([f"method {method}", f"learning rate {rate:g}", *parts, ends, f"optimiser {level.optimiser}"])
    if level.select == "auto" and level.replay is None:
        said += ", trained on gaps and as much replay as the pool has"
    return f"{said} ({', '.join(level.automatic)} by auto)" if level.automatic else said
