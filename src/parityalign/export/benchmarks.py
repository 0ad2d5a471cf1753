"""Scores as the hub shows them: in a card, and beside others' on the page of a data set that is a benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from parityalign.config import PREFIX, RunConfig, divided, is_path
from parityalign.core import Scores, yaml_mapping
from parityalign.tasks import task_of

EVALUATION = "eval.yaml"
"""The file by which a data set on the hub says that it is a benchmark, and which tasks it has."""


@dataclass(frozen=True)
class BenchmarkScore:
    """What the levelled student scores on the test split of one task."""

    task: str
    benchmark: str
    """Whose questions they are; the task's name where they are the user's own."""
    data_set: str
    """`OWNER/NAME` of the data set on the hub that the questions were read from; empty if they were not."""
    config: str | None
    split: str | None
    """As RUN.yaml names them; None: it does not."""
    metric: str
    score: float
    """Between 0 and 100."""
    questions: int
    comparable: bool
    """Whether it is a benchmark's score: all questions of the split, by the benchmark's metric."""


def benchmark_scores(config: RunConfig, scores: Scores) -> list[BenchmarkScore]:
    """The scores of the levelled student, with where their questions lie."""
    return [
        _result(config, name, scores)
        for name in scores.tasks
        if name in config.tasks  # a task may have been taken out since
    ]


def _result(config: RunConfig, name: str, scores: Scores) -> BenchmarkScore:
    data, scored = config.tasks[name], scores.tasks[name]
    benchmark = task_of(name, data).benchmark
    covered = scored.coverage
    place, split = divided((data.test or "").removeprefix(PREFIX))
    part, _, split = (split or "").rpartition("/")
    return BenchmarkScore(
        task=name,
        benchmark=benchmark.name if benchmark else name,
        data_set=hub_name(data.test or ""),
        config=part or None,
        split=split or None,
        metric=scored.metric,
        score=round(scored.after.score, 2),
        questions=scored.n,
        comparable=benchmark is not None and data.metric is None and covered.scored == covered.questions,
    )


def hub_name(spec: str) -> str:
    """`OWNER/NAME` of a source that is a data set on the hub; empty for any other."""
    name, _ = divided(spec.removeprefix(PREFIX))
    return name if spec.startswith(PREFIX) and not is_path(name) else ""


def leaderboard_entries(results: Sequence[BenchmarkScore], declared: Mapping[str, str]) -> str:
    """The content of a file in `.eval_results/`: scores on whole test splits of the hub's benchmarks.

    Args:
        results: Of the levelled student.
        declared: By name of a data set: its `eval.yaml`.

    Returns:
        YAML; empty where no score is of a benchmark.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml  # noqa: PLC0415

    entries = [
        EvalResultEntry(
            dataset_id=result.data_set,
            task_id=task_id,
            value=result.score,
            notes=f"{result.metric}, {result.questions:,} questions, measured with parityalign",
        )
        for result in results
        if result.comparable and result.data_set in declared
        for task_id in _task_ids(result, declared[result.data_set])
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False) if entries else ""


def _task_ids(result: BenchmarkScore, text: str) -> Iterator[str]:
    """The task of a benchmark that a score belongs to, if it is clear which: its only one for this split.

    A split that RUN.yaml does not name may be any; a configuration that it does not name is the data set's only one.
    """
    configs = ("default", None) if result.config is None else (result.config,)
    found = [
        task["id"]
        for task in _tasks_in(text)
        if result.split is not None and task.get("split") == result.split and task.get("config") in configs
    ]
    yield from found if len(found) == 1 else ()


def _tasks_in(text: str) -> list[Mapping[str, Any]]:
    tasks = yaml_mapping(text).get("tasks")
    found = tasks if isinstance(tasks, list) else []
    return [task for task in found if isinstance(task, dict) and isinstance(task.get("id"), str)]
