"""The parts of a student in training: frozen, at rates of their own, with adapters."""

from collections.abc import Iterable, Mapping

from torch import nn

from parityalign.config import LrMultipliers
from parityalign.core import UserError
from parityalign.models import CONNECTOR, HEAD, LANGUAGE, PARTS, VISION, part_of


def lr_multipliers_by_module(rates: LrMultipliers) -> dict[str, float] | None:
    """Factors on the learning rate; None if all are 1, so that the parts need not be distinguished."""
    named = {VISION: rates.vision, CONNECTOR: rates.connector, LANGUAGE: rates.language}
    return None if set(named.values()) == {1.0} else named


def modules_of(model: nn.Module) -> dict[str, str]:
    """The part of each of the model's parameters.

    Raises:
        UserError: A part has no parameters, or a parameter belongs to no part: this family's parts are not known.
    """
    found = {name: part_of(name) for name, _ in model.named_parameters()}
    unknown = sorted({_module(name) for name, part in found.items() if part is None})
    absent = [part for part in PARTS if part not in found.values()]
    if unknown or absent:
        raise _not_told_apart(model, found, unknown, absent)
    return {name: part for name, part in found.items() if part}


def freeze(model: nn.Module, rates: Mapping[str, float]) -> None:
    """Freezes the parts whose factor is 0.

    Raises:
        UserError: The model's parts are not known.
    """
    parts = modules_of(model)
    for name, weight in model.named_parameters():
        weight.requires_grad = bool(rates[parts[name]])


def linear_layers(model: nn.Module, rates: Mapping[str, float]) -> list[str]:
    """Names of the linear layers in the parts that are trained, the output head left out.

    The head may share its weights with the embeddings; an adapter on one of them would untie them.

    Raises:
        UserError: The model's parts are not known, or there is no such layer.
    """
    modules_of(model)
    trained = {part for part, rate in rates.items() if rate}
    named = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    found = [name for name in named if part_of(name) in trained and name.rpartition(".")[2] != HEAD]
    if not found:
        raise UserError(
            f"level.lr_multipliers trains {', '.join(sorted(trained))}, where {_kind(model)} has no linear layer for "
            "LoRA. Train another part too, or set level.method: full."
        )
    return found


def parameter_groups(
    model: nn.Module, rates: Mapping[str, float], decayed: Iterable[str], *, learning_rate: float, weight_decay: float
) -> list[dict[str, object]]:
    """Parameter groups for an optimiser: the trained parts, each with its own rate, with weight decay and without.

    Args:
        model: The student, with an adapter or without.
        rates: Factors on the learning rate by part.
        decayed: Names of the parameters with weight decay.
        learning_rate: The rate of a part whose factor is 1.
        weight_decay: Of those parameters.
    """
    parts, decayed = modules_of(model), set(decayed)
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            groups.setdefault((parts[name], name in decayed), []).append(weight)
    return [
        {"params": weights, "lr": learning_rate * rates[part], "weight_decay": weight_decay if decays else 0.0}
        for (part, decays), weights in groups.items()
    ]


def _module(name: str) -> str:
    """The two outermost names of a parameter's path, without the wrapper that most families call `model`."""
    pieces = [piece for piece in name.split(".") if piece not in ("base_model", "model")]
    return pieces[0] if pieces else name


def _kind(model: nn.Module) -> str:
    return type(model).__name__


def _not_told_apart(
    model: nn.Module, found: Mapping[str, str | None], unknown: list[str], absent: list[str]
) -> UserError:
    lacks = f"no {' and no '.join(absent)} was found in it" if absent else f"{', '.join(unknown)} is in no known part"
    modules = ", ".join(sorted({_module(name) for name in found}))
    return UserError(
        f"level.lr_multipliers is given, but the parts of the student's class {_kind(model)} are not known: {lacks}.\n"
        f"Its modules: {modules}.\n"
        "Leave level.lr_multipliers out to train everything at one rate."
    )
