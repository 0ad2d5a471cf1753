"""What a frozen vision tower makes of a picture, computed once: in every epoch and at every look it is the same.

It is caught where the connector takes it. After that the family's own code runs without the tower's layers, and the
connector is given what was caught; what a family does before and behind it stays its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from inspect import signature
from itertools import compress, count, cycle
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
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
    free_memory,
    image_bytes,
    mean_difference,
    part_of,
    read_image,
    rounding_of,
    stack_images,
    unwrapped,
)

States = list[torch.Tensor]
"""What the tower gives: the tensors that the connector is called with, one call after the other."""
SMALLEST_TOWER = 10**7
"""Weights of a tower from which on it looks once: taking pictures one by one slows smaller ones down (docs/log.md)."""
STATES_BYTES = 2**30
"""Bytes of states that are kept where the student itself is in this machine's memory."""
_SHARE_OF_MEMORY = 0.25
"""Share of the free memory that they may take where it is on a GPU."""
_PROMPT = "What is it?"
"""Of a picture that is prepared for its pixels alone."""
_BLANK = 1
"""Pixels that nobody looks at; a tile of zeros would be taken for padding."""


class FrozenTower:
    """What one tower makes of pictures; to be used from one thread.

    Attributes:
        gave_up: Whether pictures were met whose states cannot be joined. All are looked at each time from then on.
    """

    def __init__(
        self, model: nn.Module, prompter: Prompter, pictures: Sequence[Encoded], room: int, *, bf16: bool = False
    ) -> None:
        """Looks at pictures, each alone and all at once, to see how their states are joined.

        Args:
            model: The student.
            prompter: Its prompter.
            pictures: Some.
            room: Bytes that may be kept.
            bf16: Whether autocast computes in bfloat16 when the student is used.

        Raises:
            ValueError: This tower cannot be left out, or makes of several pictures something else than of each.
        """
        self._prompter = prompter
        self._left = room
        self._bf16 = bf16
        self._seen: dict[str, _SeenByTower] = {}
        self._modules: WeakKeyDictionary[nn.Module, _Modules] = WeakKeyDictionary()
        self.gave_up = False
        if not self._modules_of(model).layers:
            raise ValueError("its layers are not known")
        self._of_tower = self._states_of_tower(model, pictures[0])
        alone, together = [self.look(model, [each]) for each in pictures], self.look(model, pictures)
        self._axes = [_axis(parts, whole) for *parts, whole in zip(*alone, together, strict=True)]
        joined = self.joined(alone, device_of(model))
        if joined is None or not all(map(_alike, together, joined)):
            raise ValueError("it makes of several pictures something else than of each")

    @property
    def keeps(self) -> bool:
        """Whether further pictures need not be prepared again once they were seen."""
        return self._left >= 0 and not self.gave_up

    def known(self, path: str) -> Seen | None:
        """A picture that need not be prepared again, without its pixels; None: it has to be."""
        return self._seen[path].picture if path in self._seen and not self.gave_up else None

    def states(self, model: nn.Module, path: str, unseen: Seen | None) -> States:
        """What the tower makes of a picture.

        Always of it alone: beside other pictures the last bits would be different ones.

        Args:
            model: With this tower.
            path: Of the picture.
            unseen: With its pixels; None if it is known.
        """
        if path in self._seen:
            return self._seen[path].states
        made = self.look(model, [unseen.encoded if unseen else self._prepared(path)])
        if unseen and self.keeps:
            self._keep(path, unseen, made)
        return made

    def joined(self, pictures: Sequence[States], device: torch.device) -> States | None:
        """The states of several pictures as the tower gives them at once; None: they cannot be joined."""
        if {*map(len, pictures)} != {len(self._axes)}:
            return None
        parts = [*zip(self._axes, zip(*pictures, strict=True), strict=True)]
        if any(len({_without(axis, each.shape) for each in states}) > 1 for axis, states in parts):
            return None
        return [torch.cat([each.to(device, non_blocking=True) for each in states], axis) for axis, states in parts]

    def pixels(self, paths: Sequence[str], unseen: Mapping[str, Seen], device: torch.device) -> torch.Tensor:
        """The pixels of a batch's rows; those of known pictures are prepared again."""
        there = {path: seen.encoded for path, seen in unseen.items()}
        prepared = {path: there.get(path) or self._prepared(path) for path in dict.fromkeys(paths)}
        return stack_images([prepared[path] for path in paths], device=device)[PIXELS]

    @contextmanager
    def left_out(self, model: nn.Module, states: States) -> Iterator[None]:
        """Inside, a model runs without its tower's layers, and in each pass its connector takes these states."""
        given, of_tower, taken = cycle(states), cycle(self._of_tower), count()

        def instead_of(own: Any) -> Any:  # noqa: ANN401 - whatever the family hands over
            if not _is_state(own):
                return own
            next(taken)
            return next(given).to(own.dtype) if next(of_tower) else own

        modules = self._modules_of(model)
        with ExitStack() as inside:
            for layer in modules.layers:
                inside.enter_context(_passing_on(layer))
            inside.enter_context(
                _before(
                    modules.connectors,
                    lambda args, more: ([*map(instead_of, args)], {key: instead_of(more[key]) for key in more}),
                )
            )
            yield
        forwards, rest = divmod(next(taken), len(self._of_tower))
        if rest or not forwards:
            raise RuntimeError(
                "the student's connectors were not called as when its frozen vision tower was tried; with "
                "level.lr_multipliers.vision above 0 the tower looks each time"
            )

    @torch.no_grad()
    def look(self, model: nn.Module, pictures: Sequence[Encoded]) -> States:
        """What the tower makes of pictures at once, computed as where the student is used."""
        ends = len(self._of_tower) - self._of_tower[::-1].index(True)
        found = compress(self._all_states(model, pictures, ends), self._of_tower)
        # The connector's products are computed in that precision, and it takes half of the memory.
        return [states.bfloat16() if self._bf16 else states for states in found]

    def _states_of_tower(self, model: nn.Module, picture: Encoded) -> list[bool]:
        """Which of the states that connectors take hang on nothing that learns."""
        learning = [weight for weight in model.parameters() if weight.requires_grad]

        def stays(state: torch.Tensor) -> bool:
            if not (learning and state.requires_grad):
                return True
            found = torch.autograd.grad(state.sum(), learning, retain_graph=True, allow_unused=True)
            return all(each is None for each in found)

        with torch.enable_grad():
            found = [*map(stays, self._all_states(model, [picture]))]
        if not any(found):
            raise ValueError("nothing is known to take what it gives")
        return found

    def _all_states(self, model: nn.Module, pictures: Sequence[Encoded], ends: int | None = None) -> States:
        """All that connectors take, or as many as the look ends with."""
        modules, found = self._modules_of(model), States()

        def catch(args: Sequence[Any], more: Mapping[str, Any]) -> None:
            found.extend(each for each in (*args, *more.values()) if _is_state(each))
            if ends is not None and len(found) >= ends:
                raise _Enough

        device = device_of(model)
        inputs = stack_images(pictures, device=device)
        read = unwrapped(model).base_model.get_image_features
        taken = signature(read).parameters
        with ExitStack() as inside:
            # No weight that is cast here, without gradients, may be found again by a pass that learns.
            autocast = torch.autocast(device.type, torch.bfloat16, enabled=self._bf16, cache_enabled=False)
            inside.enter_context(autocast)
            inside.enter_context(_before(modules.connectors, catch))
            for module in modules.all:  # what does not learn drops nothing, and draws no random numbers
                inside.callback(setattr, module, "training", module.training)
                module.training = False
            with suppress(_Enough):
                read(**{key: inputs[key] for key in inputs if key in taken})
        return found

    def _prepared(self, path: str) -> Encoded:
        """A picture that is prepared again, for the sake of its pixels."""
        return self._prompter.encode(read_image(path), _PROMPT)

    def _keep(self, path: str, unseen: Seen, made: States) -> None:
        picture = without_pixels(unseen)
        self._left -= image_bytes(picture.encoded) + sum(map(_bytes, made))
        kept = [*map(_in_memory, made)] if self.keeps else []
        if kept and all(each is not None for each in kept):
            self._seen[path] = _SeenByTower(picture, [each for each in kept if each is not None])

    def _modules_of(self, model: nn.Module) -> "_Modules":
        if model not in self._modules:
            self._modules[model] = _modules(unwrapped(model))
        return self._modules[model]


@dataclass(frozen=True)
class TowerOutputs:
    """What stands in a batch for its pixels."""

    tower: FrozenTower
    paths: Sequence[str]
    """Of each row's picture."""
    unseen: Mapping[str, Seen]
    """By path, pictures that the tower may have to look at."""

    @contextmanager
    def shown_to(self, model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
        """Inside, a model with this tower sees the pictures; yields inputs to replace those of the batch."""
        states = None if self.tower.gave_up else self._states(model)
        if states is None:
            self.tower.gave_up = True
            yield {PIXELS: self.tower.pixels(self.paths, self.unseen, device_of(model))}
            return
        with self.tower.left_out(model, states):
            yield {}

    def _states(self, model: nn.Module) -> States | None:
        of_each = {path: self.tower.states(model, path, self.unseen.get(path)) for path in dict.fromkeys(self.paths)}
        return self.tower.joined([of_each[path] for path in self.paths], device_of(model))


class _SeenByTower(NamedTuple):
    """A picture and what the tower made of it."""

    picture: Seen
    """Without pixels."""
    states: States


class _Modules(NamedTuple):
    """Of one model."""

    layers: list[nn.Module]
    """Those of the tower."""
    connectors: list[nn.Module]
    """Those that are called with what the tower gives."""
    all: list[nn.Module]
    """All that tower and connectors consist of."""


class _Enough(Exception):  # noqa: N818 - no error
    """Ends a look."""


def room_for_states(device: torch.device, processes: int = 1) -> int:
    """Bytes of this machine's memory that states may take.

    Args:
        device: Where the student is.
        processes: How many share the machine.
    """
    return int(_SHARE_OF_MEMORY * free_memory()) // processes if device.type == "cuda" else STATES_BYTES


def without_pixels(seen: Seen) -> Seen:
    """A picture whose pixels mean nothing and take no memory."""
    image = seen.encoded.image
    blank = Same(np.full(1, _BLANK, image[PIXELS].dtype), image[PIXELS].shape)
    return seen._replace(encoded=replace(seen.encoded, image={**image, PIXELS: blank}))


def has_pixels(seen: Seen) -> bool:
    """Whether a picture is not one `without_pixels`."""
    pixels = seen.encoded.image[PIXELS]
    return not (isinstance(pixels, Same) and pixels.value == _BLANK)


def looks_once(model: nn.Module) -> bool:
    """Whether no weight of the tower learns, by itself or through an adapter, and looking once is worth it."""
    tower = [weight for name, weight in model.named_parameters() if part_of(name) == VISION]
    learns = any(weight.requires_grad for weight in tower)
    return not learns and sum(weight.numel() for weight in tower) >= SMALLEST_TOWER


def _modules(model: nn.Module) -> _Modules:
    by_part: dict[str, dict[str, nn.Module]] = {VISION: {}, CONNECTOR: {}}
    for name, module in model.named_modules():
        by_part.get(part_of(name) or "", {})[name] = module
    tower, connector = by_part[VISION], by_part[CONNECTOR]
    lists = {name: module for name, module in tower.items() if isinstance(module, nn.ModuleList)}
    called = {name: module for name, module in connector.items() if not isinstance(module, nn.ModuleList)}
    layers = [layer for each in _outermost(lists) for layer in each.children()]
    return _Modules(layers, _outermost(called), [*tower.values(), *connector.values()])


def _outermost(modules: Mapping[str, nn.Module]) -> list[nn.Module]:
    """Those that stand within no other."""
    found: list[str] = []
    for name in modules:  # a module comes before those within it
        if not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return [modules[name] for name in found]


@contextmanager
def _before(modules: Sequence[nn.Module], told: Callable[[Sequence[Any], Mapping[str, Any]], Any]) -> Iterator[None]:
    """Inside, what each module is called with is told first, and replaced by what comes back."""

    def hook(
        _: nn.Module, args: tuple[Any, ...], more: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        found = told(args, more)
        return (tuple(found[0]), found[1]) if found else None

    with ExitStack() as inside:
        for module in modules:
            inside.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


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


def _is_state(given: object) -> bool:
    return isinstance(given, torch.Tensor) and given.is_floating_point()


def _axis(parts: Sequence[torch.Tensor], whole: torch.Tensor) -> int:
    """Along which states of one picture follow those of another."""
    sizes = [each.shape for each in parts]
    axis = next((axis for axis, size in enumerate(whole.shape) if size == sum(each[axis] for each in sizes)), None)
    if axis is None:
        raise ValueError("what it gives cannot be told apart by picture")
    return axis


def _without(axis: int, shape: torch.Size) -> tuple[int, ...]:
    return *shape[:axis], *shape[axis + 1 :]


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and mean_difference(one, other) <= rounding_of(one.dtype)


def _bytes(states: torch.Tensor) -> int:
    """In this machine's memory: of memory that a GPU reads torch takes powers of two."""
    return 1 << (states.nbytes - 1).bit_length() if states.device.type == "cuda" else states.nbytes


def _in_memory(states: torch.Tensor) -> torch.Tensor | None:
    """A copy in this machine's memory; None: no more may be pinned."""
    if states.device.type != "cuda":
        return states.clone()  # else all that it is a part of would be held
    try:
        kept = torch.empty_like(states, device="cpu", pin_memory=True)
    except RuntimeError:
        return None
    return kept.copy_(states, non_blocking=True)  # it is only ever sent back, after this
