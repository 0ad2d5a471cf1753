"""How many processors this process may use."""

import math
import os

from parityalign.core.cgroups import core_limits


def usable_cores() -> int:
    """Those that the system gives to this process, where it says so, else all of the machine.

    In a container that may take the time of a core and a half, two.
    """
    return max(1, min([_cores_of_process(), *map(math.ceil, core_limits())]))


def _cores_of_process() -> int:
    if hasattr(os, "process_cpu_count"):
        return int(os.process_cpu_count() or 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait_passively() -> None:
    """Has threads of one computation sleep, not spin, while they wait for each other; to be called before torch loads.

    On a machine that others use too, a thread that spins takes the time of the very thread that it waits for. Left
    alone where the user has said how to wait.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
