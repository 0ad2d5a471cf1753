"""Parts are found by their name; an unknown one is answered with the near ones."""

from importlib.metadata import entry_points

import pytest

from parityalign.core import registry
from parityalign.core.errors import UserError
from parityalign.core.interfaces import Task

TASKS = ["chartqa", "okvqa", "stvqa", "textvqa"]


def test_the_four_tasks_of_the_paper_are_there():
    assert set(TASKS) <= set(registry.part_names("tasks"))


@pytest.mark.parametrize("name", TASKS)
def test_each_task_is_a_module_that_defines_it(name):
    task = registry.load_task(name)
    assert isinstance(task, Task)
    assert task.name == name
    assert "{question}" in task.answer_prompt


def test_helper_modules_are_no_parts():
    for room in ("tasks", "backends", "objectives"):
        assert not [name for name in registry.part_names(room) if name.startswith("_")]


def test_an_unknown_task_is_answered_with_the_near_ones_and_all():
    with pytest.raises(UserError, match=r"no task 'textvq'\. Did you mean textvqa") as refusal:
        registry.load_task("textvq")
    assert "okvqa" in str(refusal.value)
    assert refusal.value.exit_status == 2


@pytest.fixture
def foreign_package(tmp_path, monkeypatch):
    """A package on the path that offers a task and an answering model by entry points."""
    (tmp_path / "foreign_task.py").write_text(
        "from pathlib import Path\n"
        "from parityalign.metrics import find_metric\n"
        "from parityalign.core import Task\n"
        "TASK = Task('toy', find_metric('anls'), 'Ask.', '{question}', lambda folder: [])\n"
    )
    (tmp_path / "empty_task.py").write_text("")
    (tmp_path / "needy_task.py").write_text("import a_package_that_is_not_there\n")
    info = tmp_path / "foreign-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[parityalign.tasks]\ntoy = foreign_task\nempty = empty_task\nneedy = needy_task\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert entry_points(group="parityalign.tasks", name="toy")


def test_another_package_offers_a_task_by_an_entry_point(foreign_package):
    assert "toy" in registry.part_names("tasks")
    assert registry.load_task("toy").name == "toy"


def test_a_module_without_a_task_is_named(foreign_package):
    with pytest.raises(UserError, match="empty_task of the task 'empty' does not define TASK"):
        registry.load_task("empty")


def test_a_part_that_needs_a_missing_package_says_how_to_install_it(foreign_package):
    with pytest.raises(UserError, match="pip install a_package_that_is_not_there"):
        registry.load_task("needy")
