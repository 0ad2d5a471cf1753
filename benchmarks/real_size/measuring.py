"""What a part of the benchmark measures with: time, peak memory, how busy the GPU is."""

import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean
from threading import Thread
from typing import NamedTuple

import torch

_GPU = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200")


class Sample(NamedTuple):
    """How busy the GPU was at one moment."""

    at: float
    """Seconds since the epoch."""
    busy: float
    """Percent of the time since the sample before in which a kernel ran."""


def synchronise() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, the GPU's work included."""
    synchronise()
    began = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - began


def peak_gigabytes() -> float:
    """The most memory that this process has held: of the GPU if there is one, else its own."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


@contextmanager
def watched() -> Iterator[list[Sample]]:
    """Samples of the GPU while the work is done; none without nvidia-smi."""
    samples: list[Sample] = []
    if shutil.which(_GPU[0]) is None:
        yield samples
        return
    with subprocess.Popen(_GPU, stdout=subprocess.PIPE, text=True) as sampler:
        reader = Thread(target=_collect, args=(sampler, samples), daemon=True)
        reader.start()
        try:
            yield samples
        finally:
            sampler.terminate()
            reader.join()


def busy_share(samples: list[Sample], begin: float = 0.0, end: float = float("inf")) -> float | None:
    """The mean of the samples between two moments, in percent; None without any."""
    within = [sample.busy for sample in samples if begin <= sample.at <= end]
    return mean(within) if within else None


def _collect(sampler: "subprocess.Popen[str]", samples: list[Sample]) -> None:
    for line in sampler.stdout or ():
        text = line.strip()
        if text.isdigit():
            samples.append(Sample(time.time(), float(text)))
