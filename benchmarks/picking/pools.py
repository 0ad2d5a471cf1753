"""Pools with fewer gaps or with wrong labels, made of a run's own pairs."""

from collections.abc import Sequence

from parityalign.core import Judged, Pair, VerdictKind, sample
from parityalign.stages.level import TRAINABLE
from picking.cells import Pool


def pool_of(judged: Sequence[Judged], pool: Pool, seed: int) -> list[Judged]:
    """The pairs of a pool, with their verdicts."""
    return with_noise(thinned(judged, pool.share, seed), pool.noise, seed)


def is_gap(each: Judged) -> bool:
    """Whether a pair is a gap."""
    return each.verdict.verdict == VerdictKind.TEACHER_ONLY


def is_usable(each: Judged) -> bool:
    """Whether a pair may be trained on."""
    return each.verdict.verdict in TRAINABLE


def gap_share(judged: Sequence[Judged]) -> float:
    """Gaps among the usable pairs."""
    usable = [each for each in judged if is_usable(each)]
    return sum(map(is_gap, usable)) / len(usable)


def thinned(judged: Sequence[Judged], share: int, seed: int) -> list[Judged]:
    """Without so many gaps, at random, that those left are a share of the usable pairs; 0 leaves all."""
    if not share:
        return [*judged]
    others = sum(is_usable(each) and not is_gap(each) for each in judged)
    wanted = round(share / (100 - share) * others)
    left = {each.pair.pair_id for each in sample([*filter(is_gap, judged)], wanted, f"thin {seed}", _identity)}
    return [each for each in judged if not is_gap(each) or each.pair.pair_id in left]


def with_noise(judged: Sequence[Judged], noise: int, seed: int) -> list[Judged]:
    """Some usable pairs have another picture's answer to the same question, or to another of the task.

    The teacher repeats what it has wrong, which no second look finds, and the student says something else: a gap.
    """
    usable = [each for each in judged if is_usable(each)]
    wrong = {each.pair.pair_id for each in sample(usable, len(usable) * noise // 100, f"noise {seed}", _identity)}
    answers: dict[tuple[str, str], list[Pair]] = {}
    for pair, _ in usable:
        for question in (pair.question, ""):
            answers.setdefault((pair.task, question), []).append(pair)

    def spoilt(each: Judged) -> Judged:
        pair, verdict = each
        for question in (pair.question, ""):
            others = [other for other in answers[pair.task, question] if other.answer != pair.answer]
            if others:
                (other,) = sample(others, 1, f"instead of {pair.pair_id}", lambda one: one.pair_id)
                gap = verdict.model_copy(update={"verdict": VerdictKind.TEACHER_ONLY})
                return Judged(pair.model_copy(update={"answer": other.answer}), gap)
        return each

    return [spoilt(each) if each.pair.pair_id in wrong else each for each in judged]


def _identity(each: Judged) -> str:
    return each.pair.pair_id
