"""A student whose weights, gradients and optimiser's averages are divided among the processes that train it: FSDP2.

Zhao et al. 2023, arXiv:2304.11277, as `torch.distributed.fsdp.fully_shard` does it. Every pass of the student gathers
the weights layer by layer, so all processes have to make the same passes; what a checkpoint holds is whole, as one
process writes it, so any number of processes goes on from it.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(model: nn.Module) -> None:
    """Divides a model among all processes: each layer of its longest stack, and the rest as one.

    The vision tower is part of the rest: which of its layers a batch goes through may hang on the pictures.
    """
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (dist.get_world_size(),))
    for weight in model.parameters():  # FSDP takes no weights in another order, such as convolutions have
        weight.data = weight.data.contiguous()
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(stacks, key=_size, default=nn.ModuleList())
    for part in (*layers, model):
        fully_shard(part, mesh=mesh)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)  # gradients are parts of the step's, and are added up


def divide_again(model: nn.Module) -> None:
    """Gives back the weights outside of the layers, which stay whole after a pass until its gradients are computed.

    After a pass without gradients they would stay so for ever, and an optimiser made then would be given the copies.
    """
    if isinstance(model, FSDPModule):
        model.reshard()


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor of which each process may have a part, whole; all processes ask for it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights by name, in the first process; in all others nothing. All processes ask for them."""
    return {name: each for name, each in get_model_state_dict(model, options=_WHOLE).items() if torch.is_tensor(each)}


def give_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Gives each process its part of whole weights, which every one of them has."""
    set_model_state_dict(model, {**weights}, options=StateDictOptions(full_state_dict=True))


def keep_whole(optimiser: torch.optim.Optimizer) -> None:
    """Has the state that an optimiser gives and takes be the whole one, whoever has which parts of the weights.

    Where the weights are divided, all processes ask for it, and give it.
    """
    optimiser.register_state_dict_post_hook(_gathered)
    optimiser.register_load_state_dict_pre_hook(_like_weights)


def _gathered(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    return _with_averages(state, lambda value, _: whole(value).cpu() if isinstance(value, DTensor) else value)


def _like_weights(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The state with averages that lie as their weights do.

    That is in parts, or in an order of their own: fused optimisers pair numbers by their places in memory.
    """
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]

    def like(value: torch.Tensor, number: int) -> torch.Tensor:
        weight = weights[number]
        if value.shape != weight.shape:  # a count of steps, or averages of another form
            return value
        if isinstance(weight, DTensor):
            return distribute_tensor(value.to(weight.device).contiguous(), weight.device_mesh, weight.placements)
        return torch.empty_like(weight, dtype=value.dtype).copy_(value)

    return _with_averages(state, like)


def _with_averages(state: dict[str, Any], made: Callable[[torch.Tensor, int], torch.Tensor]) -> dict[str, Any]:
    """The state of an optimiser with other tensors, made of the old one and the number of its weight."""
    averages = {
        number: {name: made(each, number) if isinstance(each, torch.Tensor) else each for name, each in kept.items()}
        for number, kept in state["state"].items()
    }
    return {**state, "state": averages}


def _size(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
