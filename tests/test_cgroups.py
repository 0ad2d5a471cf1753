"""What a process may take of a machine: of memory and cores no more than the control groups around it allow."""

from types import SimpleNamespace

import pytest

from parityalign.core import cgroups, cores
from parityalign.models import free_memory, memory, total_memory

HELD = "memory.current: 900", "memory.stat: anon 1\ninactive_file 300"
HELD_1 = "memory.usage_in_bytes: 900", "memory.stat: total_cache 1\ntotal_inactive_file 300"


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine of 16 cores and 9,000 bytes, 5,000 of them free; its groups, as files told by their paths."""

    def made(own, **files):
        (tmp_path / "own").write_text(own)
        for folder, told in files.items():
            folder = tmp_path / "groups" / folder.replace("__", "/")
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in (each.split(": ", 1) for each in told):
                (folder / name).write_text(f"{text}\n")

    monkeypatch.setattr(cgroups, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cgroups, "_OF_THIS_PROCESS", tmp_path / "own")
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=9000, available=5000))
    monkeypatch.setattr(cores, "_cores_of_process", lambda: 16)
    return made


@pytest.mark.parametrize(
    ("said", "whole", "free"),
    [
        (("memory.max: 1000", *HELD), 1000, 400),
        (("memory.max: max", *HELD), 9000, 5000),
        (("memory.max: 100", *HELD), 100, 0),
        (("memory.max: 1000",), 1000, 5000),
        ((), 9000, 5000),
    ],
)
def test_memory_is_what_a_container_may_take(groups, said, whole, free):
    groups("0::/\n", **{"": said})
    assert (total_memory(), free_memory()) == (whole, free)


def test_a_job_has_the_least_of_the_limits_around_it(groups):
    groups(
        "1:name=systemd:/other\n0::/slurm/job_7/step\n",
        slurm=("memory.max: 8000", "cpu.max: 150000 100000", *HELD),
        slurm__job_7=("memory.max: 2000", "cpu.max: 400000 100000", *HELD),
        slurm__job_7__step=("memory.max: max", "cpu.max: max 100000", *HELD),
        slurm__job_8=("memory.max: 1", "cpu.max: 1 100000", *HELD),
    )
    assert (total_memory(), free_memory(), cores.usable_cores()) == (2000, 1400, 2)


def test_the_first_version_of_groups_has_a_folder_for_each_controller(groups):
    groups(
        "9:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/\n",
        memory=("memory.limit_in_bytes: 9223372036854771712", *HELD_1),
        memory__docker__a=("memory.limit_in_bytes: 3000", *HELD_1),
        cpu=("cpu.cfs_quota_us: -1", "cpu.cfs_period_us: 100000"),
        cpu__docker__a=("cpu.cfs_quota_us: 250000", "cpu.cfs_period_us: 100000"),
    )
    assert (total_memory(), free_memory(), cores.usable_cores()) == (3000, 2400, 3)


def test_a_container_that_sees_its_own_groups_only_still_has_their_limits(groups):
    """Its process is named by a path outside of what it sees."""
    groups("9:memory:/docker/a\n", memory=("memory.limit_in_bytes: 3000", *HELD_1))
    assert total_memory() == 3000
    groups("0::/../../b\n", **{"": ("cpu.max: 50000 100000",)})
    assert cores.usable_cores() == 1


def test_without_groups_the_machine_is_all_there(groups):
    assert (total_memory(), free_memory(), cores.usable_cores()) == (9000, 5000, 16)
