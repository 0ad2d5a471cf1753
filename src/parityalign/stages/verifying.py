"""Verify: filters mark pairs before a model is asked about them, and would-be gaps when both models have answered.

What a filter asks the teacher it asks about would-be gaps alone, so that verify keeps what identify saves: most pairs
the student has right, and nothing that a filter says of them changes what is trained on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from parityalign.config import IdentifySettings, RunConfig
from parityalign.core import (
    Answer,
    Artifact,
    Decoding,
    Judged,
    Pair,
    PairFilter,
    Reply,
    UserError,
    Verdict,
    VerdictKind,
    WouldBeGap,
    content_id,
    load_part,
)
from parityalign.engines import Asked, CachedModel
from parityalign.stages._outcomes import Outcome
from parityalign.stages.judging import Judge
from parityalign.stages.own_pairs import vouched_for

BLANK = "grey.png"
"""In the artifact of identify: what is shown in place of a picture, where a filter asks for that."""
_BLANK_SIZE, _BLANK_COLOUR = (336, 336), (128, 128, 128)
_BLANK_ID = content_id("grey picture", *map(str, (*_BLANK_SIZE, *_BLANK_COLOUR)))


class ChosenFilter(NamedTuple):
    """A filter that a run has."""

    name: str
    filter: PairFilter
    setting: object
    """True for one of another package."""


@dataclass(frozen=True)
class Teacher:
    """The teacher as filters see it (`core.SecondLook`)."""

    model: CachedModel
    second: CachedModel | None
    """The second teacher, if the run has one."""
    said: Mapping[str, Answer]
    """Its greedy answers in identify, by pair id."""
    asked: Mapping[str, Asked]
    """The questions that these are answers to."""
    likelihoods: Mapping[str, float]
    """How likely the replies were that pairs were read from, as far as that is known."""
    judges: Mapping[str, Judge]
    """By task."""
    settings: IdentifySettings
    artifact: Artifact
    """Of identify."""
    on_progress: Callable[[int, int], None]

    def ask(
        self,
        gaps: Sequence[WouldBeGap],
        *,
        after: str = "",
        blank: bool = False,
        draw: int | None = None,
        second: bool = False,
    ) -> Mapping[str, Answer]:
        """Its answers to the pairs' questions, by pair id."""
        model = self.second if second else self.model
        if model is None:
            raise UserError("a filter asks the second teacher, but the run has none; name it: verify.second_teacher")
        return model.answer(
            [self._asked(gap.pair, after, blank, draw) for gap in gaps],
            decoding=Decoding(self.settings.max_new_tokens, 0.0 if draw is None else 1.0),
            batch_size=self.settings.batch_size,
            on_progress=self.on_progress,
        )

    def score(self, gaps: Sequence[WouldBeGap], *, blank: bool = False) -> Mapping[str, float]:
        """Mean log-probability of the pairs' answers, by pair id."""
        told = [(self._asked(gap.pair, "", blank, None), gap.pair.answer) for gap in gaps]
        seen = self.model.observe(told, batch_size=self.settings.batch_size, on_progress=self.on_progress)
        return {name: found.mean_logprob for name, found in seen.items() if not isinstance(found, str)}

    def agrees(self, gap: WouldBeGap, text: str) -> bool:
        """Whether a text is right by the pair's answer."""
        judge = self.judges[gap.pair.task]
        return judge.outcome(text, gap.pair.answer, gap.pair.question) is Outcome.RIGHT

    def note(self, text: str) -> None:
        """Keeps a sentence in the manifest; an empty one is none."""
        if text:
            self.artifact.note(text)

    def _asked(self, pair: Pair, after: str, blank: bool, draw: int | None) -> Asked:
        asked = self.asked[pair.pair_id]
        if after:
            asked = asked._replace(prompt=f"{pair.question}\n{after}")
        if blank:
            asked = asked._replace(image=str(self._blank), image_id=_BLANK_ID)
        return asked if draw is None else asked._replace(seed=_seed(pair, draw))

    @cached_property
    def _blank(self) -> Path:
        path = self.artifact.path / BLANK
        Image.new("RGB", _BLANK_SIZE, _BLANK_COLOUR).save(path)
        return path


def filters_of(config: RunConfig) -> list[ChosenFilter]:
    """The filters of a run in the order in which they are used: those of other packages first.

    Raises:
        UserError: One of another package cannot be used.
    """
    chosen = {**dict.fromkeys(config.filters, True), **config.verify.switched_on()}
    return [ChosenFilter(name, load_part("filters", name, PairFilter), setting) for name, setting in chosen.items()]


def questions_of(config: RunConfig) -> int:
    """How much the filters of a run ask both teachers about each would-be gap at most."""
    return sum(sum(each.cost(setting)) for _, each, setting in filters_of(config))


def likelihoods_of(replies: Iterable[Reply]) -> dict[str, float]:
    """How likely the replies were that pairs were read from, by pair id: the log-probability of each a character."""
    return {
        reply.pair_id: reply.logprob / max(1, len(reply.raw))
        for reply in replies
        if reply.pair_id is not None and reply.logprob is not None
    }


def marked_pairs(pairs: Sequence[Pair], filters: Sequence[ChosenFilter]) -> dict[str, str]:
    """The reasons against pairs that no model has been asked about, by pair id, each with its filter's name.

    Raises:
        UserError: A filter of another package gave something else than reasons.
    """
    marks: dict[str, str] = {}
    for name, each, setting in filters:
        left = [pair for pair in pairs if pair.pair_id not in marks]
        if each.keep:
            marks |= _named(name, {pair.pair_id: each.keep(pair) for pair in left})
        if each.among:
            marks |= _named(name, each.among(left, setting))
    return marks


def without_marked_gaps(judged: Sequence[Judged], filters: Sequence[ChosenFilter], teacher: Teacher) -> list[Judged]:
    """The pairs with their verdicts, in their order; gaps that a filter has a reason against are dropped with it.

    One's own pairs and those that a person corrected are left alone: a person vouches for them.

    Raises:
        UserError: A filter of another package gave something else than reasons.
    """
    gaps = [
        WouldBeGap(pair, teacher.said[pair.pair_id], teacher.likelihoods.get(pair.pair_id))
        for pair, verdict in judged
        if verdict.verdict == VerdictKind.TEACHER_ONLY and not vouched_for(pair)
    ]
    marks: dict[str, str] = {}
    for name, each, setting in filters:
        left = [gap for gap in gaps if gap.pair.pair_id not in marks]
        if each.check and left:
            marks |= _named(name, each.check(left, teacher, setting))
    left_over = [Judged(pair, _dropped(verdict, marks.get(pair.pair_id))) for pair, verdict in judged]
    if marks and not any(verdict.verdict == VerdictKind.TEACHER_ONLY for _, verdict in left_over):
        teacher.note("No gap is left: the filters of verify had a reason against every one.")
    return left_over


def _named(name: str, found: Mapping[str, str | None]) -> dict[str, str]:
    """The reasons with their filter's name, without those that are None."""
    if not isinstance(found, Mapping):
        raise UserError(f"the filter of pairs {name!r} gave {found!r}. Expected: reasons by pair id.")
    for pair_id, reason in found.items():
        if not isinstance(reason, str | None):
            raise UserError(
                f"the filter of pairs {name!r} gave {reason!r} for the pair {pair_id}. "
                "Expected: None for a pair to keep, else the reason in words."
            )
    return {pair_id: f"{name}: {reason}" for pair_id, reason in found.items() if reason}


def _dropped(verdict: Verdict, reason: str | None) -> Verdict:
    return verdict.model_copy(update={"verdict": VerdictKind.DROPPED, "reason": reason}) if reason else verdict


def _seed(pair: Pair, draw: int) -> int:
    return int(content_id("re-answer", pair.pair_id, str(draw))[:12], 16)
