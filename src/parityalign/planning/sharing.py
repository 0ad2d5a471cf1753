"""How many processes share a model's questions, or the steps of a training, and how much sooner they are done."""

from typing import NamedTuple

from parityalign.config import Role, RunConfig, backend_of

LEVEL = "level"
"""What processes that train share, beside the questions of a role."""


class Sharing(NamedTuple):
    """The processes of one kind of work."""

    processes: int
    gpus: int
    """That they share; 0: they share one processor."""
    on_ray: str = ""
    """Where Ray decides where each of them works: how many there will be, in words."""
    divided: bool = False
    """Whether they divide the student that they train."""

    @property
    def times_as_fast(self) -> int:
        """As several processes on one GPU, or one processor, are no faster than one."""
        return max(1, min(self.processes, self.gpus))

    @property
    def in_words(self) -> str:
        """Where each of them works."""
        if self.on_ray:
            return self.on_ray
        divided = ", which divide the student among them" if self.divided else ""
        if not self.gpus:
            return f"{self.processes} processes on one processor{divided}"
        each = "each on a GPU of its own" if self.processes <= self.gpus else f"on {self.gpus} GPUs"
        return f"{self.processes} processes, {each}{divided}"


def asking(config: RunConfig, role: Role, gpus: int | None) -> Sharing:
    """The processes that hold a model of this machine while it is asked.

    Args:
        config: The run.
        role: The model.
        gpus: How many the machine has. None: as many as there are processes.
    """
    loading, backend = getattr(config.loading, role), backend_of(getattr(config, role))
    if backend.remote:
        return Sharing(1, 0)
    if config.ray:  # the nodes of a cluster are taken to be like the machine that is looked at
        count = loading.replicas
        words = f"{count} replicas on Ray" if count else "as many replicas on Ray as its nodes have room for"
        return _sharing(count, None if config.ray.address else gpus)._replace(on_ray=words)
    return _sharing(loading.processes if backend.hub else loading.replicas or 1, gpus)


def levelling(config: RunConfig, gpus: int | None) -> Sharing:
    """The processes that train, likewise; a step has a pair for each at least."""
    wanted = 1 if config.loading.student.device_map else config.level.processes
    found = _sharing(wanted, gpus)
    processes = min(found.processes, config.level.batch_size)
    return found._replace(processes=processes, divided=config.level.sharded and processes > 1)


def _sharing(wanted: int | None, gpus: int | None) -> Sharing:
    processes = wanted or max(1, gpus or 0)
    return Sharing(processes, processes if gpus is None else gpus)
