"""Statistics of the discrepancies' distributions. Importing scipy.stats takes half a second, so it is imported on
use."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parityalign.metrics._statistics import Floats, cluster_sums, percentile_interval, resampled_means

BINS = 10
"""Bins of the calibration error, with equal counts."""
RESAMPLES = 1000


class Spread(NamedTuple):
    """How values are distributed."""

    n: int
    mean: float
    low: float
    """5 % of the values lie below it."""
    quarter: float
    median: float
    three_quarters: float
    high: float
    """5 % of the values lie above it."""


class Separation(NamedTuple):
    """How well a number tells two groups apart."""

    area: float
    """Area under the ROC curve: the chance that an item of the group has the larger number; ties count half."""
    interval: tuple[float, float] | None
    """95 %, from a bootstrap over images. None: too few images."""
    inside: int
    """Items of the group."""
    outside: int
    images: int


class Calibration(NamedTuple):
    """How well predicted probabilities match the share of right answers."""

    error: float
    """Expected calibration error, 0 to 1."""
    probability: float
    """Mean."""
    right: float
    """Share of the items that are right."""
    n: int


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and percentiles; None for no values."""
    if not values:
        return None
    array = np.asarray(values, dtype=np.float64)
    return Spread(len(values), float(array.mean()), *map(float, np.percentile(array, [5, 25, 50, 75, 95])))


class Item(NamedTuple):
    """A value that does or does not belong to a group."""

    value: float
    inside: bool
    image: Hashable
    """The cluster: items on one image are correlated."""


def separation(items: Sequence[Item], rng: np.random.Generator) -> Separation | None:
    """How well the values separate the group from the others (AUROC); None if one side is empty.

    The area is the Mann-Whitney statistic over its maximum: the mean over the group of the share of the others that
    lie below (Hanley and McNeil 1982, Radiology 143(1)). The bootstrap keeps these shares fixed and resamples images,
    a first-order approximation of recomputing them in each resample (DeLong et al. 1988, Biometrics 44(3); for
    clusters Obuchowski 1997, Biometrics 53(2)).
    """
    values = np.array([item.value for item in items], dtype=np.float64)
    chosen = np.array([item.inside for item in items], dtype=bool)
    inside, outside = int(chosen.sum()), int((~chosen).sum())
    if not inside or not outside:
        return None
    shares = _shares_in_order(values, chosen)
    area = float(shares[chosen].mean())
    columns = np.column_stack([shares * chosen, chosen, shares * ~chosen, ~chosen]).astype(np.float64)
    sums, sizes = cluster_sums(columns, [item.image for item in items])
    means = resampled_means(sums, sizes, resamples=RESAMPLES, rng=rng)
    both = means[(means[:, 1] > 0) & (means[:, 3] > 0)]  # resamples with an item on both sides
    replicates = np.clip(both[:, 0] / both[:, 1] + both[:, 2] / both[:, 3] - area, 0, 1)
    interval = percentile_interval(replicates) if len(sizes) > 1 and len(replicates) else None
    return Separation(area, interval, inside, outside, len(sizes))


def _shares_in_order(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Of each item of the group the share of the others that lie below, of each other that of the group above."""
    from scipy.stats import rankdata  # noqa: PLC0415

    ranks = rankdata(values)
    shares = np.empty(len(values))
    shares[chosen] = (ranks[chosen] - rankdata(values[chosen])) / (~chosen).sum()
    shares[~chosen] = 1 - (ranks[~chosen] - rankdata(values[~chosen])) / chosen.sum()
    return shares


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than three items or a constant side."""
    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    from scipy.stats import spearmanr  # noqa: PLC0415

    return float(spearmanr(one, other).statistic)


def calibration(probabilities: Sequence[float], right: Sequence[bool]) -> Calibration | None:
    """Expected calibration error over bins of equal count; None for no items.

    The items are sorted by probability and cut into bins; the error is the mean over the items of the distance between
    their bin's mean probability and its share of right ones (Naeini et al. 2015, AAAI; equal-count bins as in Nixon et
    al. 2019, arXiv:1904.01685). Ties keep their given order.
    """
    if not probabilities:
        return None
    given, correct = np.asarray(probabilities, dtype=np.float64), np.asarray(right, dtype=np.float64)
    bins = np.array_split(np.argsort(given, kind="stable"), min(BINS, len(given)))
    error = sum(len(items) * abs(given[items].mean() - correct[items].mean()) for items in bins) / len(given)
    return Calibration(float(error), float(given.mean()), float(correct.mean()), len(given))
