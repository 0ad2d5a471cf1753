"""Acceptance: whether a levelled student is better, judged by pairs on images that were held out of the pool.

The images are held out before anything is chosen, and all their usable pairs judge, whatever the student had right
before: pairs chosen for being gaps would accept any student that moved away from its answers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parityalign.config import IdentifySettings, LevelSettings
from parityalign.core import (
    Agreement,
    Estimate,
    HeldOut,
    HeldOutPair,
    Judged,
    LevelResult,
    Pair,
    Share,
    Task,
    VerdictKind,
    sample,
)
from parityalign.metrics import cluster_sums, paired_difference, share_interval
from parityalign.stages._outcomes import Outcome
from parityalign.stages.judging import judge_of

HELD_OUT = "held_out.jsonl"
"""File of the levelled student's artifact: how it did on each held-out pair."""
HAD_RIGHT = (VerdictKind.STUDENT_RIGHT, VerdictKind.BOTH)
"""Verdicts of pairs that the student has right, and so has the teacher if it was asked."""
JUDGING = (VerdictKind.TEACHER_ONLY, *HAD_RIGHT)
"""Verdicts of pairs that can judge: the student, or the teacher when it was asked again, agrees with their answer."""
RESAMPLES = 2000
PERMUTATIONS = 10_000


class Held(NamedTuple):
    """What is held out of the pool."""

    images: frozenset[str]
    pairs: list[Judged]
    """The pairs that judge: those on the images that are usable, or a sample of them."""


def hold_out(judged: Sequence[Judged], settings: LevelSettings, seed: int) -> Held:
    """Holds images out of the pool, at least one if there are two with pairs.

    Args:
        judged: All pairs.
        settings: The share of the images, and the most pairs.
        seed: Of the draws.
    """
    images = sorted({pair.image_id for pair, verdict in judged if verdict.verdict != VerdictKind.DROPPED})
    wanted = min(max(1, round(settings.held_out * len(images))), len(images) - 1)
    held = frozenset(sample(images, wanted, f"held out {seed}", str))
    usable = [each for each in judged if each.pair.image_id in held and each.verdict.verdict in JUDGING]
    chosen = sample(usable, settings.held_out_pairs, f"judging {seed}", lambda each: each.pair.pair_id)
    return Held(held, chosen)


def judged_after(
    held: Sequence[Judged],
    before: Mapping[str, str],
    after: Mapping[str, str],
    tasks: Mapping[str, Task],
    settings: IdentifySettings,
) -> list[HeldOutPair]:
    """How the student did on the held-out pairs before and after, judged as in identify.

    Args:
        held: The pairs that judge.
        before: The greedy answers of the student before, by pair id; verdicts may rest on answers from elsewhere.
        after: Those of the levelled student.
        tasks: By name.
        settings: The rule of identify.
    """
    judges = {name: judge_of(task, settings) for name, task in tasks.items()}

    def is_right(pair: Pair, text: str) -> bool:
        return judges[pair.task].outcome(text, pair.answer, pair.question) is Outcome.RIGHT

    return [
        HeldOutPair(
            pair_id=pair.pair_id,
            image_id=pair.image_id,
            task=pair.task,
            right_before=is_right(pair, before[pair.pair_id]),
            right_after=is_right(pair, after[pair.pair_id]),
            text=after[pair.pair_id],
        )
        for pair, _ in held
    ]


def is_better(result: LevelResult, held: Sequence[HeldOutPair]) -> bool:
    """Whether the levelled student is better on the held-out pairs.

    It has more of them right, by at least the standard error of the paired difference over images: its checkpoint is
    the best of several on these very pairs, so a gain of a few may be luck (docs/results-strong-student.md). The very
    same ones right, and a lower loss, will do too; as many but other ones will not.
    """
    before, after = _flags(held)
    if before == after:
        return result.held_out_loss_after < result.held_out_loss_before
    by_image, _ = cluster_sums(np.subtract(after, before, dtype=np.float64)[:, None], [each.image_id for each in held])
    gain, error = float(by_image.sum()), float(np.sqrt((by_image**2).sum()))
    return gain > 0 and gain >= error


def summary(held: Sequence[HeldOutPair], *, accepted: bool, seed: int) -> HeldOut:
    """Agreement with the teacher before and after, gaps closed and answers lost, with intervals over images."""
    tasks = dict.fromkeys(each.task for each in held)
    return HeldOut(
        accepted=accepted,
        total=_agreement(held, seed),
        tasks={task: _agreement([each for each in held if each.task == task], seed) for task in tasks},
    )


def _agreement(held: Sequence[HeldOutPair], seed: int) -> Agreement:
    before, after = _flags(held)
    images = [each.image_id for each in held]
    difference = paired_difference(
        np.subtract(after, before, dtype=np.float64).tolist(),
        images,
        resamples=RESAMPLES,
        permutations=PERMUTATIONS,
        rng=np.random.default_rng([seed, len(held)]),
    )
    low, high = difference.interval
    return Agreement(
        pairs=len(held),
        images=len(set(images)),
        before=share_of(before, images),
        after=share_of(after, images),
        difference=Estimate(score=round(100 * difference.mean, 4), ci=(round(100 * low, 4), round(100 * high, 4))),
        p=difference.p,
        gaps_closed=_among(held, lambda each: not each.right_before, lambda each: each.right_after),
        lost=_among(held, lambda each: each.right_before, lambda each: not each.right_after),
    )


def _among(
    held: Sequence[HeldOutPair], counts: Callable[[HeldOutPair], bool], hit: Callable[[HeldOutPair], bool]
) -> Share:
    cases = [each for each in held if counts(each)]
    return share_of([hit(each) for each in cases], [each.image_id for each in cases])


def share_of(hits: Sequence[bool], images: Sequence[str]) -> Share:
    """How many of the cases hit, with Wilson's interval, widened for cases that share an image; none: no share."""
    if not hits:
        return Share(count=0, of=0, share=None, ci=None)
    low, high = share_interval(hits, images)
    share = round(sum(hits) / len(hits), 6)
    return Share(count=sum(hits), of=len(hits), share=share, ci=(round(low, 6), round(high, 6)))


def _flags(held: Sequence[HeldOutPair]) -> tuple[list[bool], list[bool]]:
    return [each.right_before for each in held], [each.right_after for each in held]
