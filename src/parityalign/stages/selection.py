"""What of the pool is trained on: as set, or as the pool says (`select: auto`).

Measured in docs/results-picking.md: gaps are worth picking where they are rare, do no harm where they are not, and
the share of replay decides how much the student forgets: in a pool with 10 % gaps it forgot more with a half than it
won, and with four fifths it did not.
"""

from typing import Literal, NamedTuple

from parityalign.config import LevelSettings

LEAST_REPLAY, MOST_REPLAY = 0.5, 0.8
"""Between these is the share of replay, unless it is set: the pool's own share of pairs that the student has right."""


class Selection(NamedTuple):
    """What is trained on."""

    select: Literal["gaps", "all", "random"]
    replay: float
    """Share of the training pairs that the student has right already, if gaps are picked."""
    why: str = ""
    """In a sentence, if the pool decided."""


def selection_of(settings: LevelSettings, *, gaps: int, had_right: int, usable: int) -> Selection:
    """What a pool is trained on.

    Args:
        settings: What is set, or `auto`.
        gaps: Gaps of the pool, without what is held out.
        had_right: Pairs that the student has right.
        usable: These, and those that neither model has right.
    """
    replay = settings.replay
    if replay is None:
        replay = min(MOST_REPLAY, max(LEAST_REPLAY, had_right / max(1, had_right + gaps)))
    if settings.select != "auto":
        return Selection(settings.select, replay)
    share = 100 * gaps / max(1, usable)
    found = f"{share:.0f} % of the {usable:,} usable pairs are gaps"
    why = f"{found}; they are trained on, with replay as {100 * replay:.0f} % of the training"
    return Selection("gaps", replay, why)
