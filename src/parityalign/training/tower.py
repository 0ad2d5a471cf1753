"""What a frozen vision tower makes of a picture, computed once: in every epoch and at every look it is the same.

It is caught where the connector takes it. After that the family's own code runs with the tower's layers left out, and
the connector is given what was caught; what a family does before and behind it stays its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from itertools import compress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import psutil
import torch
from torch import nn

from parityalign.models import (
    CONNECTOR,
    PIXELS,
    VISION,
    Encoded,
    Prompter,
    Same,
    Seen,
    device_of,
    mean_difference,
    part_of,
    read_image,
    rounding_of,
    stack_images,
    unwrapped,
)

Caught = list[torch.Tensor]
"""What the connector takes: the tensors of each of its calls, one after the other."""
CAUGHT_BYTES = 2**30
"""Bytes that are kept where the student is in the same memory."""
_SHARE_OF_FREE = 0.25
"""The same beside a GPU, of the memory that is free."""
_PROMPT = "What is it?"
_BLANK = 1
"""Pixels that nobody looks at; a tile of zeros would be taken for padding."""


class FrozenTower:
    """What one tower makes of pictures; to be used from one thread."""

    def __init__(self, model: nn.Module, prompter: Prompter, pictures: Sequence[Encoded], room: int) -> None:
        """Looks at pictures, each alone and all at once, to see how they follow each other.

        Args:
            model: The student.
            prompter: Its prompter.
            pictures: Some.
            room: Bytes that may be kept.

        Raises:
            ValueError: What this tower gives is not known, or it makes of several pictures something else than of each.
        """
        self._prompter = prompter
        self._left = room
        self._unseen: dict[str, Seen] = {}
        self._kept: dict[str, _Kept] = {}
        self._parts: WeakKeyDictionary[nn.Module, _Parts] = WeakKeyDictionary()
        with torch.enable_grad():  # what one connector makes for another one changes when they learn
            self._stays = [not states.requires_grad for states in self._states(model, pictures)]
        if not any(self._stays):
            raise ValueError("nothing is known to take what the tower gives")
        alone, together = [self._look(model, [each]) for each in pictures], self._look(model, pictures)
        self._axes = [_axis(parts, whole) for *parts, whole in zip(*alone, together, strict=True)]
        joined = self.joined(alone, device_of(model))
        if joined is None or not all(map(_alike, together, joined)):
            raise ValueError("the tower makes of several pictures something else than of each")

    def known(self, path: str) -> Seen | None:
        """A picture that need not be prepared again, without its pixels; None: it has to be."""
        kept = self._kept.get(path)
        return kept.seen if kept else None

    def take(self, path: str, seen: Seen) -> Seen:
        """Takes the pixels of a picture until they are looked at; gives the picture without them."""
        known = self.known(path)
        if known is None:
            self._unseen[path] = seen
        return known or without_pixels(seen)

    def caught(self, model: nn.Module, path: str) -> Caught:
        """What the tower makes of a picture alone: beside others its last bits would hang on them.

        Args:
            model: With this tower.
            path: Of a picture that was taken.
        """
        kept, seen = self._kept.get(path), self._unseen.pop(path, None)
        if kept:
            return kept.states
        made = [_as_computed_with(states) for states in self._look(model, [seen.encoded if seen else self._read(path)])]
        size = sum(states.nbytes for states in made)
        if seen and size <= self._left:
            self._left -= size
            self._kept[path] = _Kept(without_pixels(seen), [_in_memory(states) for states in made])
        return made

    def forget(self) -> None:
        """Has each picture looked at again."""
        self._left += sum(states.nbytes for kept in self._kept.values() for states in kept.states)
        self._kept.clear()

    def joined(self, pictures: Sequence[Caught], device: torch.device) -> Caught | None:
        """What the connector takes of several pictures; None: theirs do not follow each other, being of other sizes."""
        calls = zip(self._axes, zip(*pictures, strict=True), strict=True)
        try:
            return [torch.cat([each.to(device, non_blocking=True) for each in states], axis) for axis, states in calls]
        except RuntimeError as problem:
            if isinstance(problem, torch.OutOfMemoryError):
                raise
            return None

    @contextmanager
    def left_out(self, model: nn.Module, given: Caught) -> Iterator[None]:
        """Inside, a model's tower has no layers, and its connector takes what is given."""
        waiting, stays = iter(given), iter(self._stays)

        def instead(
            _: nn.Module, args: tuple[Any, ...], more: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            def swapped(own: Any) -> Any:  # noqa: ANN401 - whatever the family hands over
                return next(waiting).to(own.dtype) if _is_states(own) and next(stays) else own

            return tuple(map(swapped, args)), {key: swapped(each) for key, each in more.items()}

        parts = self._parts_of(model)
        with ExitStack() as inside:
            for layer in parts.layers:
                inside.enter_context(_passing_on(layer))
            for connector in parts.connectors:
                inside.callback(connector.register_forward_pre_hook(instead, with_kwargs=True).remove)
            yield

    def pixels(self, paths: Sequence[str], device: torch.device) -> torch.Tensor:
        """The pixels of a batch."""
        return stack_images([self._read(path) for path in paths], device=device)[PIXELS]

    def _read(self, path: str) -> Encoded:
        """A picture prepared again, with any prompt."""
        return self._prompter.encode(read_image(path), _PROMPT)

    @torch.no_grad()
    def _look(self, model: nn.Module, rows: Sequence[Encoded]) -> Caught:
        """What the tower makes of pictures at once."""
        return [*compress(self._states(model, rows), self._stays)]

    def _states(self, model: nn.Module, rows: Sequence[Encoded]) -> Caught:
        """What connectors take."""
        parts, found = self._parts_of(model), Caught()

        def catch(_: nn.Module, args: tuple[Any, ...], more: dict[str, Any]) -> None:
            found.extend(each for each in (*args, *more.values()) if _is_states(each))

        inputs = stack_images(rows, device=device_of(model))
        read = unwrapped(model).base_model.get_image_features
        taken = signature(read).parameters
        with ExitStack() as inside:
            for connector in parts.connectors:
                inside.callback(connector.register_forward_pre_hook(catch, with_kwargs=True).remove)
            for module in parts.tower:  # what does not learn leaves nothing out by chance
                inside.callback(setattr, module, "training", module.training)
                module.training = False
            read(**{key: inputs[key] for key in inputs if key in taken})
        return found

    def _parts_of(self, model: nn.Module) -> "_Parts":
        if model not in self._parts:
            self._parts[model] = _parts(unwrapped(model))
        return self._parts[model]


@dataclass(frozen=True)
class TowerOutputs:
    """What stands in a batch for its pixels."""

    tower: FrozenTower
    paths: Sequence[str]
    """Of each row's picture."""

    @contextmanager
    def given_to(self, model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
        """Inside, a model with this tower sees the pictures; yields inputs that it has to be given too."""
        device = device_of(model)
        found = {path: self.tower.caught(model, path) for path in dict.fromkeys(self.paths)}
        given = self.tower.joined([found[path] for path in self.paths], device)
        if given is None:
            yield {PIXELS: self.tower.pixels(self.paths, device)}
            return
        with self.tower.left_out(model, given):
            yield {}


class _Kept(NamedTuple):
    """A picture that the tower has seen."""

    seen: Seen
    """Without pixels."""
    states: Caught


class _Parts(NamedTuple):
    """Of one model."""

    layers: list[nn.Module]
    """The tower's."""
    tower: list[nn.Module]
    """All of its modules."""
    connectors: list[nn.Module]
    """What is called with what the tower gives."""


def room_for_caught(device: torch.device, processes: int = 1) -> int:
    """Bytes that may be kept in this machine's memory.

    Args:
        device: Where the student is.
        processes: That share the machine.
    """
    free = psutil.virtual_memory().available
    return int(_SHARE_OF_FREE * free) // processes if device.type == "cuda" else CAUGHT_BYTES


def without_pixels(seen: Seen) -> Seen:
    """A picture whose pixels mean nothing and take no memory."""
    image = seen.encoded.image
    blank = Same(np.full(1, _BLANK, image[PIXELS].dtype), image[PIXELS].shape)
    return seen._replace(encoded=replace(seen.encoded, image={**image, PIXELS: blank}))


def is_frozen(model: nn.Module) -> bool:
    """Whether no weight of the tower learns, by itself or through an adapter."""
    learns = {weight.requires_grad for name, weight in model.named_parameters() if part_of(name) == VISION}
    return learns == {False}


def _parts(model: nn.Module) -> _Parts:
    tower = {name: module for name, module in model.named_modules() if part_of(name) == VISION}
    connectors = {
        name: module
        for name, module in model.named_modules()
        if part_of(name) == CONNECTOR and not isinstance(module, nn.ModuleList)
    }
    lists = {name: module for name, module in tower.items() if isinstance(module, nn.ModuleList)}
    return _Parts(
        [layer for each in _outermost(lists) for layer in each.children()], [*tower.values()], _outermost(connectors)
    )


def _outermost(modules: Mapping[str, nn.Module]) -> list[nn.Module]:
    """Those that stand within no other."""
    found: list[str] = []
    for name in modules:  # a module comes before those within it
        if not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return [modules[name] for name in found]


@contextmanager
def _passing_on(layer: nn.Module) -> Iterator[None]:
    """Inside, a layer gives what it is given, and whoever listens to it hears that."""
    own = vars(layer).get("forward")
    vars(layer)["forward"] = lambda states, *_, **__: states
    try:
        yield
    finally:
        del vars(layer)["forward"]
        if own is not None:
            vars(layer)["forward"] = own


def _is_states(given: object) -> bool:
    return isinstance(given, torch.Tensor) and given.is_floating_point()


def _axis(parts: Sequence[torch.Tensor], whole: torch.Tensor) -> int:
    """Along which states of one picture follow those of another."""
    sizes = [each.shape for each in parts]
    axis = next((axis for axis, size in enumerate(whole.shape) if size == sum(each[axis] for each in sizes)), None)
    if axis is None:
        raise ValueError("what the tower gives cannot be told apart by picture")
    return axis


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and mean_difference(one, other) <= rounding_of(one.dtype)


def _as_computed_with(states: torch.Tensor) -> torch.Tensor:
    """In the precision of autocast where it is on: the connector's first product would round to it."""
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states


def _in_memory(states: torch.Tensor) -> torch.Tensor:
    if states.device.type != "cuda":
        return states.clone()  # else all that it is a part of would be held
    kept = torch.empty_like(states, device="cpu", pin_memory=True)
    return kept.copy_(states, non_blocking=True)  # whoever needs it asks the same GPU, later
