"""Several processes that train one student: each takes a share of a step's examples, and all take the same step.

Gradients are added up when every rank has all of its own, and not within the backward pass as DistributedDataParallel
does it: a rank whose memory runs out there begins its share again, and would leave the others waiting for ever.
"""

import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")

_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher such as torchrun leaves in the environment."""
_PATIENCE = timedelta(days=7)
"""The others wait as long for one that measures or saves; one that dies is noticed by the process that started it."""


class Ranks:
    """This process among those that train; alone, all that it does is nothing.

    Attributes:
        rank: Its place, from 0.
        size: How many there are.
        sharded: Whether the student is divided among them, so that all of them do whatever is done with it.
        shares_gpus: Whether several of them use one GPU.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.sharded = False
        self.shares_gpus = False

    @property
    def first(self) -> bool:
        """Whether it is the one that measures, saves and tells."""
        return self.rank == 0

    def join(self, meeting: str, *, shares_gpus: bool) -> None:
        """Meets the others.

        Args:
            meeting: Path of a file that is not there, the same for all.
            shares_gpus: Whether several ranks use one GPU, which NCCL refuses.
        """
        self.shares_gpus = shares_gpus
        for name in _LAUNCHERS:  # by which accelerate would look for others, and share the pairs out itself
            os.environ.pop(name, None)
        if sys.platform == "linux":  # the others are on this machine: nobody else shall reach them
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and not shares_gpus else "gloo"
        where = Path(meeting).as_uri()
        dist.init_process_group(backend, where, rank=self.rank, world_size=self.size, timeout=_PATIENCE)

    def leave(self) -> None:
        """Parts from the others; all of them do."""
        if self.size > 1:
            self.wait()
            dist.destroy_process_group()

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of the items that is this one's, neighbours together; one less than another's, or none, at times."""
        first, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return items[first:end]

    def wait(self) -> None:
        """Until all are here."""
        self.total(0)

    def total(self, value: int) -> int:
        """The sum of the ranks' values."""
        return self._agreed(value, dist.ReduceOp.SUM)

    def largest(self, value: int) -> int:
        """The largest of the ranks' values."""
        return self._agreed(value, dist.ReduceOp.MAX)

    def smallest(self, value: int) -> int:
        """The smallest of the ranks' values."""
        return self._agreed(value, dist.ReduceOp.MIN)

    def from_first(self, work: Callable[[], float]) -> float:
        """What `work` returns in the first one, where alone it is done unless the student is divided."""
        if self.size == 1:
            return work()
        value = torch.tensor([work() if self.first or self.sharded else 0.0], dtype=torch.float64)
        dist.broadcast(value, src=0)
        return float(value)

    def added(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of the ranks' tensors."""
        if self.size == 1:
            return value
        added = value.detach().cpu()
        dist.all_reduce(added)
        return added.to(value.device)

    def add_gradients(self, model: nn.Module) -> None:
        """Gives each weight the sum of the ranks' gradients, where the backward pass has not done it; none where no
        rank has one.
        """
        if self.size == 1 or self.sharded:
            return
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        known = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32)
        dist.all_reduce(known, dist.ReduceOp.MAX)
        going = []
        for weight, somewhere in zip(weights, known.tolist(), strict=True):
            if somewhere:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                # Numbers are added in the order of the memory, which need not be the same on every rank.
                ordered = weight.grad.contiguous()
                going.append((weight.grad, ordered, dist.all_reduce(ordered, async_op=True)))
        for gradient, ordered, work in going:
            work.wait()
            if ordered is not gradient:
                gradient.copy_(ordered)

    def _agreed(self, value: int, operation: "dist.ReduceOp.RedOpType") -> int:
        if self.size == 1:
            return value
        agreed = torch.tensor([value], dtype=torch.int64)
        dist.all_reduce(agreed, operation)
        return int(agreed)


ALONE = Ranks()
