"""Parts are found by their name; an unknown one is answered with the near ones."""

import pytest

from parityalign.core import registry
from parityalign.core.errors import UserError
from parityalign.core.interfaces import Benchmark, Skill
from parityalign.tasks import load_task

TASKS = ["chartqa", "okvqa", "stvqa", "textvqa"]
LATER = ["chartqapro", "docvqa", "infographicvqa", "ocrbench", "realworldqa"]


@pytest.mark.parametrize("group", ["skills", "benchmarks"])
def test_the_four_tasks_of_the_paper_are_both_skills_and_benchmarks(group):
    assert set(TASKS) <= set(registry.part_names(group))


@pytest.mark.parametrize("name", [*TASKS, *LATER, "vqa"])
def test_each_skill_and_each_benchmark_is_a_module_that_defines_it(name):
    assert registry.load_part("skills", name, Skill).name == name
    if name != "vqa":
        benchmark = registry.load_part("benchmarks", name, Benchmark)
        assert (benchmark.name, benchmark.skill) == (name, name)


def test_helper_modules_are_no_parts():
    for group in ("skills", "benchmarks", "metrics", "backends", "losses"):
        assert not [name for name in registry.part_names(group) if name.startswith("_")]


def test_an_unknown_task_is_answered_with_the_near_ones_and_all():
    with pytest.raises(UserError, match=r"no task 'textvq'\. Did you mean textvqa") as refusal:
        load_task("textvq")
    assert "okvqa" in str(refusal.value)
    assert refusal.value.exit_status == 2
