"""Finds a metric by its name."""

from parityalign.core import Metric, load_part


def find_metric(name: str) -> Metric:
    """The metric of that name: a file in `metrics/`, or another package's.

    Raises:
        UserError: There is no such metric; the message suggests near names and lists all.
    """
    return load_part("metrics", name, Metric)
