"""What differs between two runs: settings, counts, scores, verdicts on the same pairs, test questions."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from parityalign.core import CONFIG, Estimate, Scores, UserError, read_manifest, yaml_mapping
from parityalign.data import Unfit, read_bytes
from parityalign.metrics import paired_difference
from parityalign.report import ABSENT, in_words
from parityalign.stages import STAGES
from parityalign.viewer.reading import LOST, WON
from parityalign.viewer.tables import Index
from parityalign.viewer.watching import WatchedRun

_SHOWN = 20
"""Questions that are listed."""
_RESAMPLES = 2000


class Setting(NamedTuple):
    """A setting that differs, by its dotted name."""

    name: str
    one: str
    other: str


class Verdicts(NamedTuple):
    """The verdicts on pairs that both runs have."""

    shared: int
    only_one: int
    only_other: int
    moved: list[tuple[str, str, int]]
    """(verdict of the one, of the other, pairs), where they differ."""


class Questions(NamedTuple):
    """Scores of the levelled students on test questions that both runs have."""

    shared: int
    difference: Estimate | None
    """Of the mean scores, the other run's minus the one's, in points, with its interval over pictures; None: no
    question is in both."""
    p: float
    """Of the paired test that there is no difference."""
    better: int
    """Questions on which the other run's student scores higher."""
    worse: int
    listed: list[tuple[str, int, int]]
    """Some of both, each with its place in the two runs."""


def differing_settings(one: Path, other: Path) -> list[Setting]:
    """The settings of two run folders that are not equal; of a file that cannot be read, all are missing."""
    left, right = (dict(_flat(_settings(run / CONFIG))) for run in (one, other))
    names = [*left, *(name for name in right if name not in left)]
    said = [Setting(name, left.get(name, ABSENT), right.get(name, ABSENT)) for name in names]
    return [each for each in said if each.one != each.other]


def differing_counts(one: Path, other: Path) -> list[tuple[str, str, str, str]]:
    """(stage, what is counted, in the one, in the other) of what is not equal."""
    rows = []
    for stage in STAGES:
        left, right = (_counts(run / stage.artifact) for run in (one, other))
        rows += [
            (stage.name, in_words(name), _count(left.get(name)), _count(right.get(name)))
            for name in {**left, **right}
            if left.get(name) != right.get(name)
        ]
    return rows


def scores_side_by_side(one: Scores | None, other: Scores | None) -> list[tuple[str, ...]]:
    """(task, before and after of the one, before and after of the other, difference of the two after); then their mean,
    if both have the same tasks and more than one."""
    left, right = (scores.tasks if scores else {} for scores in (one, other))
    rows = []
    for task in {**left, **right}:
        pair = (left.get(task), right.get(task))
        cells = [f"{value.score:.1f}" if value else ABSENT for each in pair for value in _both(each)]
        known = [each.after.score for each in pair if each]
        rows.append((task, *cells, f"{known[1] - known[0]:+z.1f}" if len(known) == 2 else ABSENT))
    if len(left) > 1 and left.keys() == right.keys():
        before, after, other_before, other_after = (
            fmean(value.score for value in values)
            for tasks in (left, right)
            for values in zip(*map(_both, tasks.values()), strict=True)
        )
        means = [f"{value:.1f}" for value in (before, after, other_before, other_after)]
        rows.append(("mean", *means, f"{other_after - after:+z.1f}"))
    return rows


@lru_cache(4)
def compared_verdicts(one: Index, other: Index) -> Verdicts:
    """The verdicts of two runs on the same pairs."""
    left, right = (_by_id(index, "SELECT pair_id, verdict FROM pairs") for index in (one, other))
    shared = left.keys() & right.keys()
    moved = Counter((left[pair_id], right[pair_id]) for pair_id in shared if left[pair_id] != right[pair_id])
    listed = [(before, after, count) for (before, after), count in moved.most_common()]
    return Verdicts(len(shared), len(left) - len(shared), len(right) - len(shared), listed)


@lru_cache(4)
def compared_questions(one: Index, other: Index) -> Questions:
    """The levelled students of two runs on the same test questions about the same pictures."""
    query = (
        "SELECT task, question_id, question, image, after_score, place "
        "FROM questions JOIN question_texts USING (place) WHERE after_score IS NOT NULL"
    )
    left, right = (
        {(row["task"], row["question_id"], row["question"]): row for row in index.rows(query)} for index in (one, other)
    )
    same = cache(_same_picture)  # a picture may have many questions
    shared = [key for key in left if key in right and same(left[key]["image"], right[key]["image"])]
    if not shared:
        return Questions(0, None, 1.0, 0, 0, [])
    gains = {key: right[key]["after_score"] - left[key]["after_score"] for key in shared}
    better, worse = ([key for key in shared if sign * gains[key] > 0] for sign in (1, -1))
    listed = [(WON, key) for key in better[: _SHOWN // 2]] + [(LOST, key) for key in worse[: _SHOWN // 2]]
    places = [(change, left[key]["place"], right[key]["place"]) for change, key in listed]
    found = paired_difference(
        [gains[key] for key in shared],
        [left[key]["image"] for key in shared],
        resamples=_RESAMPLES,
        permutations=_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    low, high = found.interval
    difference = Estimate(score=100 * found.mean, ci=(100 * low, 100 * high))
    return Questions(len(shared), difference, found.p, len(better), len(worse), places)


def _same_picture(one: str, other: str) -> bool:
    """Whether two files are one picture: questions of two drawn splits may agree in everything else."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.getsize(one) == os.path.getsize(other) and read_bytes(Path(one)) == read_bytes(Path(other))
    except (OSError, ValueError, Unfit):
        return False


def _by_id(index: Index, query: str) -> dict[str, str]:
    return {row["pair_id"]: row["verdict"] for row in index.rows(query)}


def _both(task: Any) -> tuple[Any, Any]:  # noqa: ANN401 - the scores of a task, or None
    return (task.before, task.after) if task else (None, None)


def _settings(path: Path) -> Mapping[str, object]:
    try:
        return yaml_mapping(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def _flat(said: Mapping[Any, object], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in said.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, "none" if value is None else str(value)


def _counts(artifact: Path) -> dict[str, int]:
    try:
        counts = (read_manifest(artifact) or {"counts": {}})["counts"]
    except UserError:  # the page of the run tells it
        return {}
    return {name: count for name, count in counts.items() if isinstance(count, int)}


def _count(count: int | None) -> str:
    return ABSENT if count is None else f"{count:,}"


def names_of(one: WatchedRun, other: WatchedRun) -> tuple[str, str]:
    """What two runs are called beside each other: by their folders, with the one above where that is equal."""
    if one.name != other.name:
        return one.name, other.name
    return f"{one.path.parent.name}/{one.name}", f"{other.path.parent.name}/{other.name}"
