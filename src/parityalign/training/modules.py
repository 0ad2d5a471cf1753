"""The parts of a vision-language model: the vision tower, the connector behind it, and the language model.

Found by the names that transformers gives them, which its families share:

    model.vision_tower...  model.visual...  model.vision_model...          vision
    model.multi_modal_projector...  model.connector...  model.visual.merger...    connector
    model.language_model...  model.text_model...  lm_head                   language
"""

from collections.abc import Iterable, Mapping

from torch import nn

from parityalign.config import LrMultipliers
from parityalign.core import UserError

VISION, CONNECTOR, LANGUAGE = "vision", "connector", "language"

_NAMES = {
    VISION: ("vision_tower", "visual", "vision_model", "vision_encoder", "vision_backbone"),
    CONNECTOR: (
        *("multi_modal_projector", "connector", "mlp1", "aligner", "modality_projection", "perceiver_resampler"),
        *("qformer", "query_tokens", "language_projection", "image_to_text_projection", "embed_vision"),
        # Learnt separator tokens between rows and tiles of an image, next to the projector.
        *("image_newline", "view_separator", "view_seperator"),
    ),
    LANGUAGE: ("language_model", "text_model", "lm_head"),
}
_PART_OF = {name: part for part, names in _NAMES.items() for name in names}
_INSIDE_VISION = frozenset({"merger", "deepstack_merger_list", "patch_merger", "downsample"})
"""Connectors inside the tower that map to the language model's space: Qwen-VL, GLM-4V."""


def module_of(name: str) -> str | None:
    """The part of a parameter or module, by its full name; None if unknown."""
    pieces = name.split(".")
    part = next((_PART_OF[piece] for piece in pieces if piece in _PART_OF), None)
    return CONNECTOR if part == VISION and not _INSIDE_VISION.isdisjoint(pieces) else part


def lr_multipliers_by_module(rates: LrMultipliers) -> dict[str, float] | None:
    """Factors on the learning rate; None if all are 1, so that the parts need not be distinguished."""
    named = {VISION: rates.vision, CONNECTOR: rates.connector, LANGUAGE: rates.language}
    return None if set(named.values()) == {1.0} else named


def modules_of(model: nn.Module) -> dict[str, str]:
    """The part of each of the model's parameters.

    Raises:
        UserError: A part has no parameters, or a parameter belongs to no part: this family's parts are not known.
    """
    found = {name: module_of(name) for name, _ in model.named_parameters()}
    unknown = sorted({_module(name) for name, part in found.items() if part is None})
    absent = [part for part in _NAMES if part not in found.values()]
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
    found = [name for name in named if module_of(name) in trained and name.rpartition(".")[2] != "lm_head"]
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
