"""Means over tasks and their intervals: over images by a bootstrap, over seeds by Student's t."""

from collections.abc import Hashable, Sequence
from statistics import mean, stdev

import numpy as np
from scipy.stats import t

from parityalign.metrics._statistics import Floats, cluster_sums, percentile_interval, resampled_means

RESAMPLES = 10_000


def by_task(scores: Floats, sizes: Sequence[int]) -> Floats:
    """(questions, tasks + 1): a column for each task, scaled so that the column's mean is the task's, and their mean.

    Args:
        scores: (questions,), task after task.
        sizes: How many questions each task has.
    """
    columns = np.zeros((len(scores), len(sizes) + 1))
    starts = np.cumsum([0, *sizes])
    for number, size in enumerate(sizes):
        part = slice(starts[number], starts[number] + size)
        columns[part, number] = scores[part] * len(scores) / size
        columns[part, -1] += scores[part] * len(scores) / (size * len(sizes))
    return columns


def over_images(
    columns: Floats, images: Sequence[Hashable], *, resamples: int = RESAMPLES
) -> list[tuple[float, float]]:
    """95 % intervals of the means of the columns, images drawn with replacement."""
    means = resampled_means(*cluster_sums(columns, images), resamples=resamples, rng=np.random.default_rng(0))
    return [percentile_interval(column) for column in means.T]


def over_seeds(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of what several seeds came to; None of one, or of equal ones."""
    if len(values) < 2 or not (spread := stdev(values)):
        return None
    low, high = t.interval(0.95, len(values) - 1, loc=mean(values), scale=spread / len(values) ** 0.5)
    return float(low), float(high)
