"""Scores the answers to test splits, from 0 to 100, with counts and confidence intervals."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parityalign.core import (
    Comparison,
    Coverage,
    Estimate,
    Forgotten,
    Gain,
    Metric,
    PaperMetric,
    Question,
    Scores,
    Task,
    TaskScores,
    content_id,
)
from parityalign.metrics import Floats, cluster_sums, find_metric, percentile_interval, resampled_means, sign_flip_p
from parityalign.stages.forgotten import Case, regressions_by_task

PERMUTATIONS = 10_000
"""Permutations of the paired test: its p value is never below 1 / 10,001."""
RIGHT = 0.5
"""Score from which an answer to a test question counts as right, where a yes or no is needed."""


class AnsweredQuestion(NamedTuple):
    """A question and what the three models answered."""

    question: Question
    before: str
    after: str
    teacher: str


def score_run(
    said: Mapping[str, Sequence[AnsweredQuestion]],
    tasks: Mapping[str, Task],
    *,
    not_scored: Mapping[str, Mapping[str, int]],
    resamples: int,
    seed: int,
) -> Scores:
    """Scores every task that has answers, and the mean over them.

    Args:
        said: Questions and answers of each scored task.
        tasks: All tasks by name.
        not_scored: How many other questions the files have, by task and reason.
        resamples: Bootstrap resamples of the images for an interval.
        seed: Of all draws; each task has its own.
    """
    scored: dict[str, TaskScores] = {}
    gains: list[Floats] = []
    known: list[Case] = []
    for name, answers in said.items():
        coverage = _coverage(len(answers), not_scored.get(name, {}))
        values = _values(answers, tasks[name].metric)
        scored[name], replicates = _score_task(tasks[name], answers, values, coverage, resamples=resamples, seed=seed)
        gains.append(replicates)
        known += _previously_right(name, answers, values)
    return Scores(
        tasks=scored,
        mean_gain=_mean_gain(scored, gains),
        gap_recovered=_gap_recovered(scored),
        not_scored=[name for name in tasks if name not in scored],
        forgotten=Forgotten(questions=regressions_by_task(known)),
    )


def _previously_right(task: str, answers: Sequence[AnsweredQuestion], values: Floats) -> list[Case]:
    """The questions that the student had right before, and whether it lost them."""
    both = zip(answers, values, strict=True)
    return [
        Case(task, said.question.image, bool(after < RIGHT)) for said, (before, after, _) in both if before >= RIGHT
    ]


def _coverage(scored: int, not_scored: Mapping[str, int]) -> Coverage:
    reasons = {reason: count for reason, count in sorted(not_scored.items()) if count}
    return Coverage(questions=scored + sum(reasons.values()), scored=scored, not_scored=reasons)


def _score_task(
    task: Task, answers: Sequence[AnsweredQuestion], values: Floats, coverage: Coverage, *, resamples: int, seed: int
) -> tuple[TaskScores, Floats]:
    """The task's scores and the bootstrap replicates of its gain, shape (resamples,)."""
    paper = _values(answers, find_metric("mpa_substring")).mean(axis=0)
    images = [said.question.image for said in answers]
    whole, replicates = _compare(values, images, resamples, _chance(seed, task.name))
    scores = TaskScores(
        **whole.model_dump(),
        metric=task.metric.name,
        paper_metric=PaperMetric(before=_points(paper[0]), after=_points(paper[1]), teacher=_points(paper[2])),
        improved=int((values[:, 1] > values[:, 0]).sum()),
        worsened=int((values[:, 1] < values[:, 0]).sum()),
        subsets=_subsets(task, answers, values, resamples, seed),
        coverage=coverage,
    )
    return scores, replicates


def _subsets(
    task: Task, answers: Sequence[AnsweredQuestion], values: Floats, resamples: int, seed: int
) -> dict[str, Comparison]:
    names = list(dict.fromkeys(said.question.subset for said in answers if said.question.subset))
    subsets = {}
    for name in names:
        places = [place for place, said in enumerate(answers) if said.question.subset == name]
        images = [answers[place].question.image for place in places]
        subsets[name], _ = _compare(values[places], images, resamples, _chance(seed, task.name, name))
    return subsets


def _values(answers: Sequence[AnsweredQuestion], metric: Metric) -> Floats:
    """Scores of shape (questions, 3): before, after, teacher."""
    return np.array(
        [
            [metric.on_question(text, said.question.answers, said.question.exact).value for text in said[1:]]
            for said in answers
        ],
        dtype=np.float64,
    )


def _compare(
    values: Floats, images: Sequence[str], resamples: int, rng: np.random.Generator
) -> tuple[Comparison, Floats]:
    """The three columns of `values` with their intervals, and the replicates of the gain."""
    sums, sizes = cluster_sums(values, images)
    means = resampled_means(sums, sizes, resamples=resamples, rng=rng)
    before, after, teacher = values.mean(axis=0)
    gains = means[:, 1] - means[:, 0]
    gain = _estimate(after - before, gains)
    comparison = Comparison(
        n=len(values),
        images=len(sizes),
        before=_estimate(before, means[:, 0]),
        after=_estimate(after, means[:, 1]),
        teacher=_estimate(teacher, means[:, 2]),
        gain=Gain(
            score=gain.score,
            ci=gain.ci,
            p=sign_flip_p(sums[:, 1] - sums[:, 0], permutations=PERMUTATIONS, rng=rng),
        ),
    )
    return comparison, gains


def _mean_gain(scored: Mapping[str, TaskScores], gains: Sequence[Floats]) -> Estimate | None:
    """The mean over the tasks. Their images are resampled independently, so replicates are averaged one by one."""
    if not scored:
        return None
    mean = sum(task.gain.score for task in scored.values()) / len(scored) / 100
    return _estimate(mean, np.mean(gains, axis=0))


def _gap_recovered(scored: Mapping[str, TaskScores]) -> float | None:
    gain = sum(task.gain.score for task in scored.values())
    distance = sum(task.teacher.score - task.before.score for task in scored.values())
    return round(gain / distance, 4) if distance > 0 else None


def _estimate(value: float, replicates: Floats) -> Estimate:
    low, high = percentile_interval(replicates)
    return Estimate(score=_points(value), ci=(_points(low), _points(high)))


def _points(share: float) -> float:
    return round(100 * float(share), 4)


def _chance(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, int(content_id(*names)[:8], 16)])
