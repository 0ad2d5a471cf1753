"""The student's layers compiled by torch: tried before training, never a reason to stop.

Autocast casts what each layer takes and gives, and transformers' layers are many small operations: on a GPU half of a
step's time goes to kernels that copy, add and cast, and to starting them. torch's compiler fuses them. It compiles one
layer of each kind, since the others are alike, in under a minute (docs/results-gpu.md).
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch import nn

from parityalign.config import LevelSettings
from parityalign.training.kernels import TOLERANCE, in_a_line

PAYS_OFF = 200
"""Optimiser steps from which on compiling takes less time than it saves."""
_COMPILERS = ("cc", "gcc", "clang")
"""Triton's kernels are started through a little C."""


def worth_compiling(settings: LevelSettings, steps: int) -> bool:
    """Whether a training of so many optimiser steps compiles its student on one GPU.

    Attention cannot be recorded in compiled layers.
    """
    wanted = steps >= PAYS_OFF if settings.compile is None else settings.compile
    return wanted and "attention" not in settings.needs and _there()


@contextmanager
def compiled_layers(
    model: nn.Module,
    trial: Callable[[], float],
    say: Callable[[str], None],
    *,
    wanted: bool,
    backend: str = "inductor",
) -> Iterator[bool]:
    """Inside the `with`, the model's repeated layers are compiled while it is in training mode; tells whether they are.

    Args:
        model: The student, on a GPU.
        trial: A forward and backward pass of a little work in training mode; returns its loss.
        say: Told that layers are being compiled, and why not if they cannot be.
        wanted: Whether to.
        backend: Of torch's compiler.
    """
    layers = [*_repeated(model)] if wanted else []
    if not layers:
        yield False
        return
    dynamo: Any = import_module("torch._dynamo.config")  # seconds, where nothing is compiled
    say("compiling the student's layers, which takes about a minute")
    plain = [(layer, vars(layer).get("forward")) for layer in layers]
    try:
        problem = _problem_with(layers, trial, backend)
        if problem:
            _put_back(plain)
            say(f"the student's layers are not compiled: {problem}")
        with dynamo.patch(suppress_errors=True):  # what cannot be compiled later, for another shape, runs as it is
            yield not problem
    finally:
        _put_back(plain)
        torch.compiler.reset()


def _there() -> bool:
    on_gpu = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (7, 0)  # which Triton takes
    return on_gpu and find_spec("triton") is not None and any(map(shutil.which, _COMPILERS))


def _repeated(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of lists of several of one kind, such as an encoder's; not those within them."""
    inside: set[nn.Module] = set()
    for layers in model.modules():
        if not isinstance(layers, nn.ModuleList) or layers in inside or len(layers) < 2:
            continue
        if len({*map(type, layers)}) == 1 and any(layers[0].children()):
            inside.update(layers.modules())
            yield from layers


def _problem_with(layers: list[nn.Module], trial: Callable[[], float], backend: str) -> str:
    """Compiles layers; what keeps them from being used so, in a line. Empty: nothing."""
    try:
        as_written = trial()
        for layer in layers:
            _compile(layer, backend)
        loss = trial()
    except Exception as problem:  # noqa: BLE001 - a compiler may fail in any way, and training can do without
        return in_a_line(getattr(problem, "inner_exception", problem))  # what a compiler met, where it wraps it
    finally:
        clear_device_cache(garbage_collection=True)
    close = abs(loss - as_written) <= TOLERANCE * (1 + abs(as_written))
    return "" if close else f"the loss is {loss:.4g} compiled and {as_written:.4g} as it is written"


def _compile(layer: Any, backend: str) -> None:  # noqa: ANN401 - whichever class the family has
    as_written = layer.forward
    # From the first shape on for any: rows and pictures differ in length from one micro-batch to the next.
    fast = torch.compile(as_written, dynamic=True, backend=backend)

    @wraps(as_written)
    def forward(*given: Any, **more: Any) -> Any:  # noqa: ANN401
        return (fast if layer.training else as_written)(*given, **more)

    layer.forward = forward


def _put_back(plain: list[tuple[nn.Module, Any]]) -> None:
    for layer, own in plain:
        vars(layer).pop("forward", None)
        if own is not None:
            vars(layer)["forward"] = own
