"""Measures a model's memory: its weights, and the peak on top of them."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

_ROOM = 1.25
"""Memory for another model as a multiple of its weights, for activations and cache."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"
"""Written to the kernel's file, resets the peak; see proc(5)."""


def fits_twice(model: PreTrainedModel) -> bool:
    """Whether the model's device has memory for another one of its size."""
    if model.device.type == "cuda":
        free = sum(torch.cuda.mem_get_info(gpu)[0] for gpu in _gpus(model))
    else:
        free = _kilobytes(Path("/proc/meminfo"), "MemAvailable") * 1024
    return free > _ROOM * _weights(model)


def peak_bytes(model: PreTrainedModel, work: Callable[[], object]) -> int | None:
    """Does the work and returns the model's weights plus the peak on top of them, in bytes.

    Other models may be in memory: only the increase counts. None if the peak cannot be measured.
    """
    extra = _extra_on_gpus(_gpus(model), work) if model.device.type == "cuda" else _extra_in_process(work)
    return None if extra is None else _weights(model) + extra


def _weights(model: Any) -> int:  # noqa: ANN401 - the method has no types
    return int(model.get_memory_footprint())


def _gpus(model: PreTrainedModel) -> list[torch.device]:
    """The devices of the model's weights."""
    return list({weights.device for weights in model.parameters() if weights.device.type == "cuda"})


def _extra_on_gpus(gpus: Sequence[torch.device], work: Callable[[], object]) -> int:
    before = [torch.cuda.memory_allocated(gpu) for gpu in gpus]
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)
    work()
    return sum(torch.cuda.max_memory_allocated(gpu) - held for gpu, held in zip(gpus, before, strict=True))


def _extra_in_process(work: Callable[[], object]) -> int | None:
    """The peak growth of the process; only on Linux."""
    known = _begin_anew()
    before = _kilobytes(_STATUS, "VmRSS")
    work()
    return (_kilobytes(_STATUS, "VmHWM") - before) * 1024 if known else None


def _begin_anew() -> bool:
    """Resets the peak of memory, after returning free memory to the system."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text(_FORGET_PEAK)
    except (OSError, AttributeError):  # another system, or another C library
        return False
    return True


def _kilobytes(file: Path, name: str) -> int:
    """The bytes of a line such as `VmRSS:  8704 kB` of a kernel file; 0 if it is missing."""
    lines = file.read_text().splitlines() if file.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
