"""Finds a task, with what the configuration chose for it."""

from dataclasses import replace

from parityalign.config import TaskData
from parityalign.core import Task, load_part
from parityalign.metrics import find_metric


def load_task(name: str) -> Task:
    """The task of this name.

    Raises:
        UserError: There is no such task.
    """
    return load_part("tasks", name, Task)


def task_of(name: str, data: TaskData) -> Task:
    """The task, with the metric that the configuration chose for it."""
    task = load_task(name)
    return replace(task, metric=find_metric(data.metric)) if data.metric else task
