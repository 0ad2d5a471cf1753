"""The seam of filters: what marks pairs before a model is asked about them, and would-be gaps before they are gaps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from parityalign.core.records import Answer, Pair
from parityalign.core.registry import fault_of_function


class WouldBeGap(NamedTuple):
    """A pair that is a gap unless a filter has a reason against it."""

    pair: Pair
    answer: Answer
    """The teacher's answer when it was asked again, greedily."""
    likelihood: float | None = None
    """How likely the reply was that the pair was read from: its log-probability a character. None: unknown."""


class SecondLook(Protocol):
    """The teacher, as filters ask it about would-be gaps; answers and scores are kept like all others."""

    def ask(
        self,
        gaps: Sequence[WouldBeGap],
        *,
        after: str = "",
        blank: bool = False,
        draw: int | None = None,
        second: bool = False,
    ) -> Mapping[str, Answer]:
        """Its answers to the pairs' questions, by pair id.

        Args:
            gaps: Of which pairs.
            after: Replaces the instruction after the question, such as to answer in a word; empty: as in identify.
            blank: Show a grey picture in place of the pair's own.
            draw: The number of a draw at temperature 1. None: greedy.
            second: Ask the second teacher (`verify.second_teacher`) in its place.
        """

    def score(self, gaps: Sequence[WouldBeGap], *, blank: bool = False) -> Mapping[str, float]:
        """Mean log-probability of the pairs' answers over its own tokens, in nats, by pair id; none where unknown.

        Args:
            gaps: Of which pairs.
            blank: With a grey picture in place of the pair's own.
        """

    def agrees(self, gap: WouldBeGap, text: str) -> bool:
        """Whether a text is right by the pair's answer, as identify judges."""

    def note(self, text: str) -> None:
        """Keeps a sentence for people, which manifest, terminal and report have; an empty one is none."""


class FilterCost(NamedTuple):
    """What a filter asks both teachers about each would-be gap."""

    questions: int = 0
    """Answers that it writes."""
    scores: int = 0
    """Given answers that it scores."""
    of_second: int = 0
    """Answers that the second teacher writes."""


@dataclass(frozen=True)
class PairFilter:
    """Marks pairs that are not to be used. A file in `stages/filters/` defines one, or another package, as `FILTER`.

    A pair that is marked stays in all files, with the reason. One of the three functions is enough.
    """

    keep: Callable[[Pair], str | None] | None = None
    """(a pair) -> None to keep it, else the reason to drop it, before any model is asked about it."""
    among: Callable[[Sequence[Pair], Any], Mapping[str, str]] | None = None
    """(all pairs, the filter's setting) -> reasons by the ids of pairs to drop, before a model is asked about them."""
    check: Callable[[Sequence[WouldBeGap], SecondLook, Any], Mapping[str, str]] | None = None
    """(would-be gaps, the teacher, the filter's setting) -> reasons by the ids of pairs to drop."""
    cost: Callable[[Any], FilterCost] = lambda setting: FilterCost()
    """What `check` asks with a setting, for plans."""

    def lacking(self) -> str:
        """What keeps it from being used, in words; empty: nothing."""
        if self.among is None and self.check is None:
            return fault_of_function("keep", self.keep, "pair")
        of_among = self.among and fault_of_function("among", self.among, "pairs", "setting")
        of_check = self.check and fault_of_function("check", self.check, "gaps", "teacher", "setting")
        return of_among or of_check or fault_of_function("cost", self.cost, "setting")
