"""Builds a task from its skill, its benchmark and its settings."""

from parityalign.config import TaskData, parts_of_task, refuse_unknown_task
from parityalign.core import Skill, Task, load_part
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import with_form, with_kind, with_rationale_form


def load_task(name: str) -> Task:
    """The task of a skill or a benchmark, with its defaults.

    Raises:
        UserError: There is no skill or benchmark of that name.
    """
    refuse_unknown_task(name)
    return task_of(name, TaskData(images=("none",)))


def task_of(name: str, data: TaskData) -> Task:
    """The task of that name in a configuration.

    Raises:
        UserError: Its skill, benchmark or metric is unknown or cannot be used.
    """
    skill, benchmark = parts_of_task(name, data.skill, data.benchmark)
    # A score on a benchmark is comparable only by the benchmark's own metric.
    scored_by = load_part("skills", benchmark.skill, Skill) if benchmark else skill
    kinds = data.kinds or skill.kinds
    annotate = with_form(data.annotate_prompt) if data.annotate_prompt else skill.annotate_prompt
    return Task(
        name=name,
        metric=find_metric(data.metric) if data.metric else scored_by.metric,
        annotate_prompt=with_kind(annotate) if kinds else annotate,
        answer_prompt=data.answer_prompt or skill.answer_prompt,
        rationale_prompt=with_rationale_form(data.rationale_prompt)
        if data.rationale_prompt
        else skill.rationale_prompt,
        benchmark=benchmark,
        kinds=kinds,
    )
