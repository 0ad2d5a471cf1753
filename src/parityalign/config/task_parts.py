"""The skill and the benchmark of a name under `tasks`."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import NamedTuple

from parityalign.core import Benchmark, Skill, UserError, did_you_mean, has_part, load_part, part_names

GENERIC_SKILL = "vqa"
"""The default skill of a user's own task."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LIKE = 0.8
"""Similarity to a known name from which a name is taken for a misspelling; `textqva` has .86 to `textvqa`."""


class TaskParts(NamedTuple):
    """The parts of a task."""

    skill: Skill
    benchmark: Benchmark | None


def parts_of_task(name: str, skill: str | None = None, benchmark: str | None = None) -> TaskParts:
    """The skill and the benchmark of a task.

    Args:
        name: The task; if there is a benchmark or a skill of that name, it is the default.
        skill: What the configuration says. None: that of the task's name, the benchmark's, or `vqa`.
        benchmark: Likewise. None: that of the task's name, or none.

    Raises:
        UserError: A part is unknown or cannot be used.
    """
    read = benchmark or (name if has_part("benchmarks", name) else None)
    found = load_part("benchmarks", read, Benchmark) if read else None
    default = name if has_part("skills", name) else found.skill if found else GENERIC_SKILL
    return TaskParts(load_part("skills", skill or default, Skill), found)


def refuse_unknown_task(name: str) -> None:
    """Checks that a name is that of a skill or a benchmark.

    Raises:
        UserError: There is no skill or benchmark of that name.
    """
    if not _is_known(name):
        raise UserError(f"there is no task {name!r}. {did_you_mean(name, _known())}")


def problems_of_name(name: str, skill: str | None) -> Iterator[str]:
    """What is wrong with a task's name, which is used in paths and must not be a misspelt known name."""
    if not _NAME.fullmatch(name):
        yield (
            f"{name!r} cannot be the name of a task; take up to 64 letters, digits, '_', '-' and '.', beginning with a "
            "letter or digit"
        )
    elif skill is None and not _is_known(name) and get_close_matches(name, _known(), n=1, cutoff=_LIKE):
        yield (
            f"there is no task {name!r}. {did_you_mean(name, _known())} "
            f"If it is a task of your own, say so with 'tasks.{name}.skill', such as {GENERIC_SKILL}"
        )


def _is_known(name: str) -> bool:
    return has_part("skills", name) or has_part("benchmarks", name)


def _known() -> list[str]:
    return sorted({*part_names("skills"), *part_names("benchmarks")})
