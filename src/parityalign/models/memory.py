"""Measures a model's memory: its weights, and the peak on top of them."""

import ctypes
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from accelerate.utils.memory import clear_device_cache
from transformers import PreTrainedModel

from parityalign.core import memory_left, memory_limits
from parityalign.models.device import gpus_of

T = TypeVar("T")
_ROOM = 1.25
"""Memory for another model as a multiple of its weights, for activations and cache."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"
"""Written to the kernel's file, resets the peak; see proc(5)."""


def fits_twice(model: PreTrainedModel) -> bool:
    """Whether the model's device has memory for another one of its size."""
    gpus = gpus_of(model)
    free = sum(map(_free_on, gpus)) if gpus else free_memory()
    return free > _ROOM * _weights(model)


def total_memory() -> int:
    """Bytes of memory that this machine has, or that its container may take."""
    return min([int(psutil.virtual_memory().total), *memory_limits()])


def free_memory() -> int:
    """Bytes that are free on this machine, and in its container if it is one."""
    return max(0, min([int(psutil.virtual_memory().available), *memory_left()]))


def give_back_memory() -> None:
    """Frees what nobody holds any more, and lets other processes have what a GPU's allocator keeps for later."""
    clear_device_cache(garbage_collection=True)


def peak_bytes(model: PreTrainedModel, work: Callable[[], object]) -> int | None:
    """Does the work and returns the model's weights plus the peak on top of them, in bytes.

    Other models may be in memory: only the increase counts. None if the peak cannot be measured.
    """
    gpus = gpus_of(model)
    extra = _extra_on_gpus(gpus, work) if gpus else _extra_in_process(work)
    return None if extra is None else _weights(model) + extra


def held_meanwhile(work: Callable[[], T]) -> tuple[T, float | None]:
    """Does the work; returns what it makes, and the most bytes that were held meanwhile.

    Of one GPU if there are any, else of this process; None if that cannot be measured. What is free is given back
    first: a GPU's allocator counts what it keeps for later as held.
    """
    give_back_memory()
    if torch.cuda.is_available():
        gpus = range(torch.cuda.device_count())
        for gpu in gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        made = work()
        return made, float(max(torch.cuda.max_memory_reserved(gpu) for gpu in gpus))
    known = sys.platform == "linux" and _begin_anew()
    made = work()
    return made, float(_peak_resident()) if known else None


def _free_on(gpu: torch.device) -> int:
    """Bytes that are free on a GPU, with those that this process keeps for later."""
    return torch.cuda.mem_get_info(gpu)[0] + torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)


def _weights(model: Any) -> int:  # noqa: ANN401 - the method has no types
    return int(model.get_memory_footprint())


def _extra_on_gpus(gpus: Sequence[torch.device], work: Callable[[], object]) -> int:
    before = [torch.cuda.memory_allocated(gpu) for gpu in gpus]
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)
    work()
    return sum(torch.cuda.max_memory_allocated(gpu) - held for gpu, held in zip(gpus, before, strict=True))


def _extra_in_process(work: Callable[[], object]) -> int | None:
    """What the process grew by at most; only Linux says so."""
    known = sys.platform == "linux" and _begin_anew()
    before = psutil.Process().memory_info().rss
    work()
    return _peak_resident() - before if known else None


def _begin_anew() -> bool:
    """Resets the peak of memory, after returning free memory to the system."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text(_FORGET_PEAK)
    except (OSError, AttributeError):  # not allowed, or another C library
        return False
    return True


def _peak_resident() -> int:
    """Bytes, from the line `VmHWM:  8704 kB`; psutil does not read it."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
