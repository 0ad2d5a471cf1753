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
from inspect import signature
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch import nn

from parityalign.config import LevelSettings
from parityalign.training.kernels import TOLERANCE, in_a_line

PAYS_OFF = 200
"""Optimiser steps from which on compiling takes less time than it saves."""
_LENGTHS = "cu_seqlens"
"""What layers take that tell pictures in a row apart, as towers of the Qwen-VL families do. They read it from the GPU,
where a compiled graph breaks, and would be compiled anew for each number of pictures."""
_COMPILERS = ("cc", "gcc", "clang")
"""Triton's kernels are started through a little C."""


def worth_compiling(settings: LevelSettings, steps: int) -> bool:
    """Whether a training with so many optimiser steps compiles its student on one GPU; 0: it is over.

    Attention cannot be recorded in compiled layers. Of 4 bits nobody has measured what compiling brings.
    """
    usually = steps >= PAYS_OFF and settings.decided.method != "qlora"
    wanted = steps > 0 and (usually if settings.compile is None else settings.compile)
    return wanted and "attention" not in settings.needs and _there()


class Compiled:
    """Compiled layers, and how they were written."""

    def __init__(self, layers: list[nn.Module], say: Callable[[str], None]) -> None:
        """Changes nothing yet.

        Args:
            layers: Of the student.
            say: Told why they are not used any more.
        """
        self._layers, self._say = layers, say
        self._own = [vars(layer).get("forward") for layer in layers]

    def compile(self, backend: str) -> None:
        """Has them be compiled when they are first used."""
        for layer in self._layers:
            _compile(layer, backend)

    def give_up(self, problem: Exception) -> None:
        """Puts the layers back as they are written, and says why."""
        self.put_back()
        cause = getattr(problem, "inner_exception", problem)  # what a compiler met, where it wraps it
        self._say(f"the student's layers are not compiled: {in_a_line(cause)}")

    def put_back(self) -> None:
        """Puts the layers back as they are written."""
        for layer, own in zip(self._layers, self._own, strict=True):
            vars(layer).pop("forward", None)
            if own is not None:
                vars(layer)["forward"] = own


@contextmanager
def compiled_layers(
    model: nn.Module,
    trial: Callable[[], float],
    say: Callable[[str], None],
    *,
    wanted: bool,
    backend: str = "inductor",
) -> Iterator[Compiled | None]:
    """Inside the `with`, the model's repeated layers are compiled while it is in training mode; None: they are not.

    Args:
        model: The student, on a GPU.
        trial: A forward and backward pass of a little work in training mode; returns its loss.
        say: Told that layers are being compiled, and why not if they cannot be.
        wanted: Whether to.
        backend: Of torch's compiler.
    """
    layers = [*_repeated(model)] if wanted else []
    if not layers:
        yield None
        return
    dynamo, inductor = (import_module(f"torch.{name}.config") for name in ("_dynamo", "_inductor"))  # takes seconds
    say("compiling the student's layers, which takes about a minute")
    made = Compiled(layers, say)
    try:
        with inductor.patch(fallback_random=True):  # dropout leaves out what it would have
            used = made if _works(made, trial, backend) else None
            with dynamo.patch(suppress_errors=True):  # what cannot be compiled for another shape runs as it is
                yield used
    finally:
        made.put_back()
        torch.compiler.reset()


def _there() -> bool:
    on_gpu = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (7, 0)  # which Triton takes
    return on_gpu and find_spec("triton") is not None and any(map(shutil.which, _COMPILERS))


def _repeated(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of lists of several of one kind, such as an encoder's; no list within them, none with `_LENGTHS`."""
    inside: set[nn.Module] = set()
    for layers in model.modules():
        if not isinstance(layers, nn.ModuleList) or layers in inside or len(layers) < 2:
            continue
        if len({*map(type, layers)}) == 1 and any(layers[0].children()):
            inside.update(layers.modules())
            if _LENGTHS not in signature(layers[0].forward).parameters:
                yield from layers


def _works(made: Compiled, trial: Callable[[], float], backend: str) -> bool:
    """Compiles layers, and puts them back where they do not do what they did."""
    try:
        as_written = trial()
        made.compile(backend)
        loss = trial()
    except Exception as problem:  # noqa: BLE001 - a compiler may fail in any way, and training can do without
        made.give_up(problem)
        return False
    finally:
        clear_device_cache(garbage_collection=True)
    if not abs(loss - as_written) <= TOLERANCE * (1 + abs(as_written)):
        made.give_up(ArithmeticError(f"the loss is {loss:.4g} compiled and {as_written:.4g} as it is written"))
        return False
    return True


def _compile(layer: Any, backend: str) -> None:  # noqa: ANN401 - whichever class the family has
    as_written = layer.forward
    # From the first shape on for any: rows and pictures differ in length from one micro-batch to the next.
    fast = torch.compile(as_written, dynamic=True, backend=backend)

    @wraps(as_written)
    def forward(*given: Any, **more: Any) -> Any:  # noqa: ANN401
        return (fast if layer.training else as_written)(*given, **more)

    layer.forward = forward
