"""Builds a task from its skill, its benchmark and its settings."""

from parityalign.config import TaskData, parts_of_task, refuse_unknown_task
from parityalign.core import KIND_FIELD, Skill, Task, load_part
from parityalign.metrics import find_metric
from parityalign.tasks._prompts import with_form, with_kind, with_rationale_form


def load_task(name: str, *, kinds: bool = True) -> Task:
    """The task of a skill or a benchmark, with its defaults.

    Args:
        name: The skill or benchmark.
        kinds: Whether it asks for the skill's kinds of questions, of which the bundled teacher knows only some.

    Raises:
        UserError: There is no skill or benchmark of that name.
    """
    refuse_unknown_task(name)
    return task_of(name, TaskData(images=("none",), kinds=() if kinds else None))


def default_kinds(data: TaskData, skill: Skill) -> tuple[str, ...]:
    """The kinds of questions of a task that names none: its skill's, unless its own annotate prompt has no `{kind}`."""
    own_words = data.annotate_prompt and KIND_FIELD not in data.annotate_prompt
    return () if own_words else skill.kinds


def task_of(name: str, data: TaskData) -> Task:
    """The task of that name in a configuration.

    Raises:
        UserError: Its skill, benchmark or metric is unknown or cannot be used.
    """
    skill, benchmark = parts_of_task(name, data.skill, data.benchmark)
    # A score on a benchmark is comparable only by the benchmark's own metric.
    scored_by = load_part("skills", benchmark.skill, Skill) if benchmark else skill
    kinds = () if data.kinds is None else data.kinds or default_kinds(data, skill)
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
