"""What a task's pairs have too much of, and what is short and drawn again.

Too much: pairs beyond a quota of one type of answer, or of questions that begin alike. Short: images with fewer pairs
than they were drawn for, and kinds of questions with fewer pairs than the others.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from parityalign.config import AnnotateSettings
from parityalign.core import Answer, ImageRef, Task, content_id
from parityalign.engines import DECLINED
from parityalign.stages.drawing import Draw, draw_of
from parityalign.stages.own_pairs import DUPLICATE, OK, REPEAT_QUESTION
from parityalign.stages.parsing import ParsedPair
from parityalign.stages.variety import AnswerType, answer_type, opening

OVER_QUOTA = "over_quota"
"""Outcome of a reply whose pair is one too many of its kind of answer or of its opening."""
WRITTEN = frozenset({OK, DUPLICATE, REPEAT_QUESTION, OVER_QUOTA})
"""Outcomes of replies with a question and an answer."""
_ENOUGH = 20
"""Draws after which a kind without any pair is one that the teacher does not write."""


class Read(NamedTuple):
    """A draw, and what became of it."""

    draw: Draw
    answer: Answer
    """What the teacher replied."""
    outcome: str
    pair: ParsedPair | None = None
    """None unless the outcome is `ok` or `over_quota`."""

    @property
    def text(self) -> str:
        """The reply, or why there is none."""
        return self.answer.text or self.answer.not_asked or ""


class BarrenKind(NamedTuple):
    """A kind of question that was asked for often and gave no pair."""

    kind: str
    outcomes: Counter[str]
    example: str
    """The text of one of its replies."""


def within_quotas(read: Sequence[Read], settings: AnnotateSettings, seed: int) -> list[Read]:
    """The same, where each pair that is beyond a quota is marked; which ones are is drawn by seed.

    Quotas are shares of the ordinary draws, so that what the teacher does not write makes no other quota smaller.
    Ordinary draws come before further ones.

    Args:
        read: All draws of a task.
        settings: Have the quotas.
        seed: The run's.
    """
    ordinary = sum(each.draw.number < settings.pairs_per_image for each in read)
    shares = dict(zip(AnswerType, (settings.most_yes_no, settings.most_numbers, settings.most_other), strict=True))
    limits = {of_type: ceil(share * ordinary) for of_type, share in shares.items() if share is not None}
    alike = None if settings.most_alike is None else ceil(settings.most_alike * ordinary)
    if not limits and alike is None:
        return [*read]
    taken: Counter[str] = Counter()
    over: set[str] = set()
    for each in sorted((each for each in read if each.pair), key=lambda each: _turn(each, settings, seed)):
        counted = [*_limited(each.pair, limits, alike)]
        if any(taken[name] >= limit for name, limit in counted):
            over.add(each.draw.asked.item_id)
        else:
            taken.update(name for name, _ in counted)
    return [each._replace(outcome=OVER_QUOTA) if each.draw.asked.item_id in over else each for each in read]


def barren_kinds(read: Sequence[Read]) -> list[BarrenKind]:
    """The kinds that were asked for often enough to tell, and that no pair came of."""
    outcomes: dict[str, Counter[str]] = {}
    examples: dict[str, str] = {}
    for each in read:
        outcomes.setdefault(each.draw.kind, Counter())[each.outcome] += 1
        examples.setdefault(each.draw.kind, each.text)
    return [BarrenKind(kind, counts, examples[kind]) for kind, counts in outcomes.items() if kind and _barren(counts)]


@dataclass(frozen=True)
class Shortage:
    """What the draws of a task so far have left short."""

    task: Task
    images: Sequence[ImageRef]
    teacher: str
    settings: AnnotateSettings
    seed: int
    read: Sequence[Read]

    def further(self, most: int) -> list[Draw]:
        """Draws on images that have fewer pairs than wanted, each of the kind that is shortest then.

        A kind that the teacher does not write is not asked for again, and a kind that was asked for on the image only
        where no other is short.

        Args:
            most: How many at most; which images come first is drawn by seed.
        """
        short = self._short_kinds()
        draws: list[Draw] = []
        for image, number, asked in self._wanting():
            if len(draws) == most or not short:
                break
            kind = max(short, key=lambda kind: (kind not in asked, short[kind]))
            draws.append(draw_of(image, self.task, self.teacher, number, self.seed, kind))
            short[kind] -= 1
            asked.add(kind)
        return draws

    def _wanting(self) -> Iterator[tuple[ImageRef, int, set[str]]]:
        """Image, number of its next draw and kinds asked for so far; once for each pair that it lacks."""
        of_image: dict[str, list[Read]] = {}
        for each in self.read:
            of_image.setdefault(each.draw.asked.image_id, []).append(each)
        for image in sorted(self.images, key=lambda image: content_id(f"further {self.seed}", image.image_id)):
            known = of_image[image.image_id]
            asked = {each.draw.kind for each in known}
            settled = sum(each.outcome in (OK, DECLINED) for each in known)
            for more in range(self.settings.pairs_per_image - settled):
                yield image, len(known) + more, asked

    def _short_kinds(self) -> dict[str, float]:
        """By kind how many pairs it has less than its share; without kinds, all that is short is of one."""
        if not self.task.kinds:
            return {"": float(len(self.read))}
        barren = {each.kind for each in barren_kinds(self.read)}
        kinds = [kind for kind in self.task.kinds if kind not in barren]
        pairs = Counter(each.draw.kind for each in self.read if each.outcome == OK)
        share = len(self.images) * self.settings.pairs_per_image / max(1, len(kinds))
        return {kind: share - pairs[kind] for kind in kinds}


def _barren(outcomes: Mapping[str, int]) -> bool:
    return sum(outcomes.values()) >= _ENOUGH and not WRITTEN & outcomes.keys()


def _turn(read: Read, settings: AnnotateSettings, seed: int) -> tuple[bool, str]:
    image_id, number = read.draw.asked.image_id, read.draw.number
    return number >= settings.pairs_per_image, content_id(f"quota {seed}", image_id, str(number))


def _limited(pair: ParsedPair | None, limits: Mapping[AnswerType, int], alike: int | None) -> Iterator[tuple[str, int]]:
    """What a pair counts as, with how many there may be of it."""
    if pair is None:
        return
    of_type = answer_type(pair.answer)
    if of_type in limits:
        yield f"answer {of_type}", limits[of_type]
    if alike is not None:
        yield f"opening {opening(pair.question)}", alike
