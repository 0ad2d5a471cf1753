"""What the records say of each cell: scores, differences on the same questions, and their intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from parityalign.metrics._statistics import Floats, cluster_sums, percentile_interval, resampled_means
from picking.cells import OWN, PAPER, RANDOM, Cell, Record, cell_of, unpacked
from spread import by_task, over_seeds

RESAMPLES = 2000
RIGHT = 0.5


class Test:
    """One seed's test questions, and how one student had them before.

    Attributes:
        record: What was recorded of the student and its pairs.
        before: (questions,) scores in points, task after task.
        teacher: The same, of the teacher.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self._tasks = sorted(record["before"])
        self._sizes = [len(record["images"][name]) for name in self._tasks]
        self._images = [(name, image) for name in self._tasks for image in record["images"][name]]
        self.before, self.teacher = self.scores(record["before"]), self.scores(record["teacher"])
        self.right = self.before >= 100 * RIGHT

    def scores(self, by_name: Mapping[str, str]) -> Floats:
        """(questions,) scores in points, of what a record holds."""
        return 100 * np.concatenate([unpacked(by_name[name]) for name in self._tasks])

    def mean(self, scores: Floats) -> float:
        """The mean of the tasks' means."""
        return float(self._weighted(scores).mean())

    def as_in_pool(self, scores: Floats, gap_share: float) -> Floats:
        """The scores weighted so that what the student had wrong before has the share that it has in the pool."""
        weighted, start = np.zeros_like(scores), 0
        for size in self._sizes:
            part = slice(start, start + size)
            right = self.right[part]
            weights = np.where(right, (1 - gap_share) / right.mean(), gap_share / (1 - right.mean()))
            weighted[part], start = weights * scores[part], start + size
        return weighted

    def replicates(self, columns: Sequence[Floats]) -> Floats:
        """(resamples, columns): means of the tasks' means, images drawn with replacement."""
        table = np.column_stack([self._weighted(column) for column in columns])
        rng = np.random.default_rng(self.record["seed"])
        return resampled_means(*cluster_sums(table, self._images), resamples=RESAMPLES, rng=rng)

    def _weighted(self, scores: Floats) -> Floats:
        column: Floats = by_task(scores, self._sizes)[:, -1]
        return column


class Trained(NamedTuple):
    """One training, scored."""

    record: Record
    after: float
    gain: float
    gain_as_in_pool: float
    closed: float
    """Per cent of the distance to the teacher."""
    forgotten: float
    """Per cent of the questions that the student had right before."""
    gains: Floats
    """(resamples, 2) bootstrap replicates of the gain, and of the gain as in the pool."""


class Value(NamedTuple):
    """A mean over seeds, with both intervals."""

    score: float
    of: int
    """How many seeds."""
    seeds: tuple[float, float] | None
    images: tuple[float, float]


Measured = Mapping[Cell, Mapping[int, Trained]]
"""By cell and seed."""


def tests_of(records: Iterable[Record]) -> dict[tuple[str, int], Test]:
    """The tests by student and seed."""
    return {(record["student"], record["seed"]): Test(record) for record in records if "student" in record}


def measured(records: Iterable[Record]) -> Measured:
    """All trainings, by cell and seed."""
    kept = [*records]
    tests = tests_of(kept)
    trained = sorted((record for record in kept if "arm" in record), key=_test)
    found: dict[Cell, dict[int, Trained]] = {}
    for test, of_test in groupby(trained, key=_test):
        for each in _scored(tests[test], [*of_test]):
            found.setdefault(cell_of(each.record), {})[test[1]] = each
    return found


def _test(record: Record) -> tuple[str, int]:
    return record["pool"]["student"], record["seed"]


def _scored(test: Test, records: Sequence[Record]) -> list[Trained]:
    afters = [test.scores(record["scores"]) for record in records]
    as_in_pool = [
        test.as_in_pool(after - test.before, _gap_share(test, record))
        for after, record in zip(afters, records, strict=True)
    ]
    replicates = test.replicates([*(after - test.before for after in afters), *as_in_pool])
    distance = test.mean(test.teacher) - test.mean(test.before)
    return [
        Trained(
            record,
            after=test.mean(after),
            gain=test.mean(after - test.before),
            gain_as_in_pool=test.mean(as_in_pool[place]),
            closed=100 * test.mean(after - test.before) / distance,
            forgotten=100 * float((after[test.right] < 100 * RIGHT).mean()),
            gains=replicates[:, [place, len(records) + place]],
        )
        for place, (record, after) in enumerate(zip(records, afters, strict=True))
    ]


def _gap_share(test: Test, record: Record) -> float:
    """Of the pool, wrong labels aside."""
    share = record["pool"]["share"]
    return float(share / 100 if share != OWN else test.record["gaps"] / test.record["pairs"])


def gain(trained: Iterable[Trained], *, as_in_pool: bool = False) -> Value:
    """The mean gain, on the test as it is or weighted as the pool is."""
    each = [*trained]
    return _value([_ends(one, as_in_pool) for one in each])


def lead(found: Measured, cell: Cell, over: str = RANDOM, *, as_in_pool: bool = False) -> Value | None:
    """How far a cell is ahead of another arm's, on the same questions of the seeds that have both; None of none."""
    mine, other = found.get(cell, {}), found.get(cell._replace(arm=over), {})
    both = [(mine[seed], other[seed]) for seed in sorted({*mine} & {*other})]
    if not both or cell.arm == over or PAPER in (cell.arm, over):
        return None
    ends = [(_ends(one, as_in_pool), _ends(two, as_in_pool)) for one, two in both]
    return _value([(one[0] - two[0], one[1] - two[1]) for one, two in ends])


def _ends(one: Trained, as_in_pool: bool) -> tuple[float, Floats]:
    """The gain and its replicates."""
    return (one.gain_as_in_pool if as_in_pool else one.gain), one.gains[:, int(as_in_pool)]


def _value(each: Sequence[tuple[float, Floats]]) -> Value:
    scores, replicates = [score for score, _ in each], [values for _, values in each]
    return Value(mean(scores), len(scores), over_seeds(scores), percentile_interval(np.mean(replicates, axis=0)))


class Reached(NamedTuple):
    """How soon one arm has the gain of another."""

    last: int
    """The most steps that the other one was trained for."""
    after: float | None
    """Steps of the one; None: it does not come to it within as many."""
    seeds: int
    """Of the curves of both."""


def steps_to_reach(found: Measured, cell: Cell, over: str = RANDOM) -> Reached | None:
    """After how many steps an arm has the gain that another one has at its most steps.

    Between the budgets that were measured it is read off a straight line over the logarithm of the steps. None where
    there are fewer than two budgets that the same seeds have of both, or the other one gains nothing.
    """
    of_both = [_by_steps(found, cell._replace(arm=arm)) for arm in (cell.arm, over)]
    steps = sorted(of_both[0].keys() & of_both[1].keys())
    seeds = set.intersection(*({*arm[step]} for arm in of_both for step in steps)) if steps else set()
    if len(steps) < 2 or not seeds:
        return None
    mine, other = ([mean(arm[step][seed].gain for seed in seeds) for step in steps] for arm in of_both)
    last, wanted = steps[-1], other[-1]
    if wanted <= 0:
        return None
    if mine[0] >= wanted:
        return Reached(last, steps[0], len(seeds))
    for (low, before), (high, after) in pairwise(zip(steps, mine, strict=True)):
        if after >= wanted:
            part = (wanted - before) / (after - before)
            return Reached(last, float(low * (high / low) ** part), len(seeds))
    return Reached(last, None, len(seeds))


def _by_steps(found: Measured, cell: Cell) -> dict[int, Mapping[int, Trained]]:
    """The trainings of a cell's pool and arm by steps, and of these by seed."""
    return {each.steps: by_seed for each, by_seed in found.items() if each._replace(steps=0) == cell._replace(steps=0)}


def over(each: Mapping[int, Trained], value: Callable[[Trained], Any]) -> float:
    """The mean of something over the seeds."""
    return mean(float(value(one)) for one in each.values())
