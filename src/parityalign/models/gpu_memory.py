"""Who holds the memory of this machine's GPUs, for messages that there was not enough of it."""

import csv
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import psutil

from parityalign.core import printable

_PROGRAM = "nvidia-smi"
_ON_GPU = "cuda"
_SECONDS = 20.0
"""It takes several where the driver is not kept loaded."""
_SHOWN = 16
"""GPUs, and processes of each, that are named."""
_NAME = 60
"""Characters of a name that are shown."""
_MIB = 1024
"""MiB in a GiB."""
_LITTLE = 1.0
"""GiB that nobody is named for and that are not worth a word: what CUDA itself needs of a process."""
_WAIT_OR_GO_ELSEWHERE = (
    "wait until it has ended, end it, or use a GPU that is free: CUDA_VISIBLE_DEVICES=NUMBER in front of the command."
)


class _Process(NamedTuple):
    """One that holds memory of a GPU."""

    number: int
    name: str
    held: float | None
    """GiB; None where the driver does not tell, as in WSL."""


class _Gpu(NamedTuple):
    number: str
    name: str
    free: float
    """GiB, as the next two."""
    used: float
    total: float
    processes: Sequence[_Process]


def with_who_holds_it(advice: str, of: str = _ON_GPU) -> str:
    """The advice below how much of each GPU's memory is free, which other processes hold it, and what to do then.

    The advice alone where no other process holds any, as far as NVIDIA's program tells; it names none outside of the
    container that it is called in.

    Args:
        advice: What to do if nobody else is to blame.
        of: A device or an error's text: whose memory is too small. If that is no GPU, the advice stands alone.
    """
    gpus = _gpus() if _ON_GPU in of.lower() else []
    named = any(map(_others, gpus))
    if not named and all(_unexplained(gpu) < _LITTLE for gpu in gpus):
        return advice
    blamed = "Another process holds memory there" if named else "If that is not this run itself"
    return "\n".join([*map(_told, gpus[:_SHOWN]), f"{blamed}: {_WAIT_OR_GO_ELSEWHERE}", advice])


def gpus_in_use() -> list[str]:
    """A line for each GPU of which another process holds memory, likewise."""
    return [_told(gpu) for gpu in _gpus() if _others(gpu) or _unexplained(gpu) >= _LITTLE]


def _told(gpu: _Gpu) -> str:
    held = [_in_words(each) for each in _others(gpu)[:_SHOWN]]
    if (unexplained := _unexplained(gpu)) >= _LITTLE:
        held.append(f"{unexplained:.1f} GiB held by processes that {_PROGRAM} does not name")
    free = f"GPU {gpu.number} ({gpu.name}): {gpu.free:.1f} of {gpu.total:.1f} GiB free"
    return "; ".join([free, *held])


def _in_words(process: _Process) -> str:
    amount = "some" if process.held is None else f"{process.held:.1f} GiB"
    owner = ""
    with suppress(psutil.Error, KeyError):
        owner = f" of {printable(psutil.Process(process.number).username())[:_NAME]}"
    return f"{amount} held by process {process.number}{owner} ({process.name})"


def _others(gpu: _Gpu) -> list[_Process]:
    """Those that are not part of this run."""
    ours = _this_run()
    return [each for each in gpu.processes if each.number not in ours]


def _unexplained(gpu: _Gpu) -> float:
    """GiB that no process is named for; 0 where it is not known of all how much they hold."""
    held = [each.held for each in gpu.processes if each.held is not None]
    return gpu.used - sum(held) if len(held) == len(gpu.processes) else 0.0


def _this_run() -> set[int]:
    with suppress(psutil.Error):
        return {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    return {os.getpid()}


def _gpus() -> list[_Gpu]:
    """What NVIDIA's program says of all GPUs; nothing where it is not there or says something else."""
    try:
        apps = _rows("--query-compute-apps=gpu_uuid,pid,process_name,used_memory", 4)
        gpus = _rows("--query-gpu=uuid,index,name,memory.free,memory.used,memory.total", 6)
        held: dict[str, list[_Process]] = {uuid: [] for uuid, *_ in gpus}
        for uuid, number, name, used in apps:
            held[uuid].append(_Process(int(number), name, float(used) / _MIB if used.isdecimal() else None))
        return [
            _Gpu(number, name, float(free) / _MIB, float(used) / _MIB, float(total) / _MIB, held[uuid])
            for uuid, number, name, free, used, total in gpus
        ]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return []


def _rows(query: str, columns: int) -> list[list[str]]:
    """A table of NVIDIA's program.

    Raises:
        ValueError: It has other columns.
        OSError: The program is not there.
        SubprocessError: It failed, or took too long.
    """
    command = [_PROGRAM, query, "--format=csv,noheader,nounits"]
    told = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)
    lines = printable(told.stdout.decode("utf-8", "replace")).splitlines()
    rows = [[cell.strip()[:_NAME] for cell in row] for row in csv.reader(lines) if row]
    if any(len(row) != columns for row in rows):
        raise ValueError(f"{_PROGRAM} {query} says something else than {columns} columns")
    return rows
