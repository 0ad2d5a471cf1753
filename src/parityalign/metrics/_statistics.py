"""Uncertainty of scores: bootstrap intervals and a paired test, both with the image as the sampling unit.

Questions on one image are correlated, so images are resampled, not questions (a cluster bootstrap; Davison and
Hinkley, "Bootstrap Methods and their Application", section 3.8). The scores of several models on the same
questions are resampled together, which keeps their differences paired.
"""

from collections.abc import Hashable, Sequence
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of all intervals."""

_CELLS = 4_000_000
"""Random numbers held in memory at once: 32 MB."""


def cluster_sums(scores: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sums the rows of each cluster.

    Args:
        scores: One row per question, one column per measure; shape (questions, measures).
        clusters: The image of each question.

    Returns:
        Sums of shape (images, measures) and the number of questions on each image, shape (images,), both in
        the order in which the images appear.
    """
    numbers: dict[Hashable, int] = {}
    places = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)
    sums = np.zeros((len(numbers), scores.shape[1]))
    np.add.at(sums, places, scores)
    return sums, np.bincount(places, minlength=len(numbers)).astype(np.float64)


def resampled_means(sums: Floats, sizes: Floats, *, resamples: int, rng: np.random.Generator) -> Floats:
    """Bootstrap replicates of the mean per question, with images drawn with replacement.

    Args:
        sums: Sums per image; shape (images, measures).
        sizes: Questions per image; shape (images,).
        resamples: How many times the images are drawn.
        rng: Random number generator.

    Returns:
        Shape (resamples, measures).
    """
    images = len(sizes)
    table = np.column_stack([sums, sizes])
    step = max(1, _CELLS // images)
    parts = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        draws = rng.integers(images, size=(rows, images))
        draws += np.arange(rows)[:, None] * images
        times_drawn = np.bincount(draws.ravel(), minlength=rows * images).reshape(rows, images)
        parts.append(times_drawn @ table)
    totals = np.concatenate(parts)
    means: Floats = totals[:, :-1] / totals[:, -1:]
    return means


def percentile_interval(replicates: Floats) -> tuple[float, float]:
    """The middle 95 % of bootstrap replicates."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(replicates, [tail, 100 - tail])
    return float(low), float(high)


def share_interval(hits: Sequence[bool], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """Wilson's score interval for a share of correlated cases.

    It uses the effective sample size m, the number of independent cases with the same variance (Wilson 1927; Korn and
    Graubard 1998 for m). If none or all are hits, where a bootstrap interval has width 0, m is the number of clusters,
    as if all cases of a cluster were identical.

    Args:
        hits: For each case whether it is a hit; at least one case.
        clusters: The image of each case.
    """
    sums, sizes = cluster_sums(np.array(hits, dtype=np.float64)[:, None], clusters)
    share = float(sums.sum() / sizes.sum())
    spread = float(((sums[:, 0] - share * sizes) ** 2).sum())
    independent = share * (1 - share) * len(hits) ** 2 / spread if spread > 1e-9 else len(sizes)
    m, z2 = min(independent, float(len(hits))), NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2
    middle = (share + z2 / (2 * m)) / (1 + z2 / m)
    half = sqrt(z2 * (share * (1 - share) / m + z2 / (4 * m * m))) / (1 + z2 / m)
    return max(0.0, middle - half), min(1.0, middle + half)


def sign_flip_p(differences: Floats, *, permutations: int, rng: np.random.Generator) -> float:
    """Two-sided p value of a paired permutation test: under the null hypothesis each image's sign is random.

    The signs as observed count as one of the permutations, so the value is never 0 and the test keeps its
    level (Phipson and Smyth 2010).

    Args:
        differences: After minus before, summed per image; shape (images,).
        permutations: How many times all signs are drawn.
        rng: Random number generator.
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    # Sums of the same numbers in another order differ in the last bits; such a tie must count as one.
    observed = abs(moved.sum()) - 1e-9
    step = max(1, _CELLS // len(moved))
    at_least = 0
    for start in range(0, permutations, step):
        rows = min(step, permutations - start)
        signs = 2 * rng.integers(2, size=(rows, len(moved)), dtype=np.int8) - 1
        at_least += int((np.abs(signs @ moved) >= observed).sum())
    return (1 + at_least) / (1 + permutations)


class PairedDifference(NamedTuple):
    """How far one model is ahead of another on the same questions."""

    mean: float
    """Per question."""
    interval: tuple[float, float]
    """95 %, from a bootstrap over images."""
    p: float
    """Two-sided, as `sign_flip_p`."""


def paired_difference(
    differences: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    resamples: int,
    permutations: int,
    rng: np.random.Generator,
) -> PairedDifference:
    """The mean of differences between two models, with its interval and the paired test.

    Args:
        differences: One per question; at least one.
        clusters: The image of each.
        resamples: Of the bootstrap.
        permutations: Of the test.
        rng: Random number generator.
    """
    sums, sizes = cluster_sums(np.array(differences, dtype=np.float64)[:, None], clusters)
    interval = percentile_interval(resampled_means(sums, sizes, resamples=resamples, rng=rng)[:, 0])
    p = sign_flip_p(sums[:, 0], permutations=permutations, rng=rng)
    return PairedDifference(float(sums.sum() / sizes.sum()), interval, p)
