"""How many processors this process may use."""

import os


def usable_cores() -> int:
    """Those that the system gives to this process, where it says so, else all of the machine."""
    if hasattr(os, "process_cpu_count"):
        return int(os.process_cpu_count() or 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
