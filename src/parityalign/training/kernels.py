"""The fused kernels of the package liger-kernel, as far as they fit: tried before training, never a reason to stop.

Its fused loss is left out: in some families it makes the logits of every token, where this package's own loss makes
those of the labelled ones (`losses/_states.py`). It changes transformers' modules for the whole process, so what it
changed is put back when training ends: the models that answer later are those that answered before.
"""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch import nn
from transformers.integrations.liger import apply_liger_kernel

PIECES = ("rope", "rms_norm", "layer_norm", "swiglu", "geglu")
"""What it has kernels for besides the loss; a family has some of them."""
_LEFT_OUT = {"cross_entropy": False, "fused_linear_cross_entropy": False}
TOLERANCE = 0.05
"""How far the loss with kernels may be from the loss without, relative to 1 + the loss: bfloat16 rounds otherwise."""
_MODELLING = "transformers.models."


@contextmanager
def fused_kernels(
    model: nn.Module, trial: Callable[[], float], say: Callable[[str], None], *, wanted: bool
) -> Iterator[None]:
    """Inside the `with`, the model runs with those kernels that fit the installed versions.

    Args:
        model: The student, on a GPU.
        trial: A forward and backward pass of a little work; returns its loss.
        say: Told which kernels are used, or why none.
        wanted: Whether they are asked for; without a GPU or the package there are none.
    """
    if not (wanted and _there()):
        yield
        return
    put_back = _as_it_is(model)
    try:
        say(_tried(model, trial, put_back))
        yield
    finally:
        put_back()


def _there() -> bool:
    return torch.cuda.is_available() and find_spec("liger_kernel") is not None


def _tried(model: nn.Module, trial: Callable[[], float], put_back: Callable[[], None]) -> str:
    """Has the model use all pieces, or those that work one after the other; says which."""
    kept = list[str]()
    try:
        plain = trial()
    except Exception as failure:  # noqa: BLE001 - training begins smaller, and tells what it lacks
        return f"liger-kernel is not used: trying it out needs more than there is ({in_a_line(failure)})"
    finally:
        clear_device_cache(garbage_collection=True)
    problem = _problem_with(PIECES, model, trial, plain)
    if not problem:
        return "liger-kernel is used"
    for piece in PIECES:
        put_back()
        if not _problem_with([*kept, piece], model, trial, plain):
            kept.append(piece)
    put_back()
    if not kept or _problem_with(kept, model, trial, plain):
        put_back()
        return f"liger-kernel is installed and not used, since it does not fit: {problem}"
    return f"of liger-kernel {', '.join(kept)} is used, since the rest does not fit: {problem}"


def _problem_with(pieces: Collection[str], model: nn.Module, trial: Callable[[], float], plain: float) -> str:
    """What keeps these kernels from being used, in a line; empty: nothing."""
    apply: Any = apply_liger_kernel  # untyped
    try:
        apply(model, {**_LEFT_OUT, **{piece: piece in pieces for piece in PIECES}})
        loss = trial()
    except Exception as problem:  # noqa: BLE001 - another package's kernels raise anything, and training can do without
        return in_a_line(problem)
    close = abs(loss - plain) <= TOLERANCE * (1 + abs(plain))
    return "" if close else f"the loss is {loss:.4g} with it and {plain:.4g} without"


def in_a_line(problem: Exception) -> str:
    """What went wrong, in a line."""
    return f"{type(problem).__name__}: {next(iter(str(problem).splitlines()), '')}"


def _as_it_is(model: nn.Module) -> Callable[[], None]:
    """A function that puts back what the model, and transformers' modules and their classes, consist of now."""
    modelling = [module for name, module in sys.modules.items() if name.startswith(_MODELLING)]
    classes = [each for module in modelling for each in vars(module).values() if _is_own_class(each, module)]
    holders = [*map(vars, model.modules()), *map(vars, modelling)]
    contents = [(holder, dict(holder)) for holder in holders]
    attributes = [(each, dict(vars(each))) for each in classes]

    def put_back() -> None:
        for holder, before in contents:
            for name in holder.keys() - before.keys():
                del holder[name]
            holder.update(before)
        for each, were in attributes:
            for name in vars(each).keys() - were.keys():
                delattr(each, name)
            for name, value in were.items():
                if vars(each)[name] is not value:
                    setattr(each, name, value)

    return put_back


def _is_own_class(found: object, module: ModuleType) -> bool:
    return isinstance(found, type) and found.__module__ == module.__name__
