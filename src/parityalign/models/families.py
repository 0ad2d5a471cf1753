"""Families of models: those that are held to all checks of docs/models.md, and how another one is tried.

Families differ in how a batch's pictures are put together, in what tells a picture's tokens apart and in what padding
does; one that takes these in a way of its own mixes up pictures without an error. So a model of a family that nobody
has checked is asked about two pictures before it is used: in a batch it has to say of each what it says of it alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from parityalign.config import LoadingSettings
from parityalign.core import UserError
from parityalign.models.device import device_of, is_out_of_memory
from parityalign.models.encoding import Encoded, Prompter
from parityalign.models.loading import AS_IT_IS, open_config
from parityalign.models.rounding import mean_difference, rounding_of
from parityalign.models.stacking import stack

CHECKED = frozenset(
    {
        *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "smolvlm", "idefics3", "internvl", "llava", "llava_next"),
        *("llava_onevision", "paligemma", "gemma3", "gemma4", "fast_vlm", "glm46v", "granite4_vision", "lfm3_vl"),
        *("minicpmv4_6", "aya_vision", "ovis2", "lfm2_vl", "molmo2", "mistral3"),
    }
)
"""`model_type` of each family in docs/models.md, and of those that pass only where torchvision is installed."""
_PICTURES = ((96, 64), (64, 112))
"""Width and height of what a family is tried with."""
_PROMPTS = ("What is it?", "Which colours are to be seen in this picture?")


def unchecked_family(location: str, loading: LoadingSettings = AS_IT_IS) -> str | None:
    """What is to be said of a model whose family is held to no checks; None: it is one of docs/models.md.

    Raises:
        UserError: Its configuration is missing, or is not of a vision-language model.
    """
    family = open_config(location, loading).model_type
    if family in CHECKED:
        return None
    return (
        f"{location} is of the family {family}, which is none of docs/models.md. When it is loaded it is tried with "
        "two pictures, alone and in a batch. Unchecked are its end of an answer in training, its limit of pixels, "
        "attention maps, and that a saved student opens elsewhere"
    )


def refuse_mixed_up(name: str, model: Any, prompter: Prompter, pad: int) -> None:  # noqa: ANN401 - any family's
    """Refuses a model of an unchecked family that says something else of pictures in a batch than of each alone.

    Args:
        name: The model in messages.
        model: It, opened.
        prompter: Its own.
        pad: The id of padding.

    Raises:
        UserError: It does, or it cannot be asked about a picture at all.
    """
    family = model.config.model_type
    if family in CHECKED:
        return
    rows, others = (
        [prompter.encode(picture, prompt) for picture, prompt in zip(pictures, _PROMPTS, strict=True)]
        for pictures in (_drawn(), _drawn()[::-1])
    )
    try:
        alone, exchanged = (torch.cat([_after_prompts(model, [row], pad) for row in each]) for each in (rows, others))
        together = [_after_prompts(model, rows, pad), _in_training(model, rows, pad)]
    except Exception as problem:
        if is_out_of_memory(problem):
            raise
        raise UserError(
            f"{name} cannot be asked in batches ({type(problem).__name__}: {str(problem)[:200]}): parityalign does not "
            f"know how its family {family} takes pictures.\n{_INSTEAD}"
        ) from problem
    found = max(mean_difference(alone, each) for each in together)
    if not found <= rounding_of(model.dtype) or any(_is_of_another(each, alone, exchanged) for each in together):
        raise UserError(
            f"{name} mixes up pictures or prompts in batches: its log-probabilities differ by {found:.2g} from those "
            f"that it gives each alone. parityalign does not know how its family {family} takes them.\n{_INSTEAD}"
        )


_INSTEAD = (
    "Serve the model (vLLM, SGLang) and name it by its address if it is the teacher, or take one of a family in "
    "docs/models.md."
)


def _drawn() -> list[Image.Image]:
    """Noise and plain black: a model says more different things of them than of two pictures of one kind."""
    (width, height), black = _PICTURES
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return [Image.fromarray(noise), Image.new("RGB", black)]


def _is_of_another(said: torch.Tensor, alone: torch.Tensor, exchanged: torch.Tensor) -> bool:
    """Whether a row is clearly nearer to what the model says of the other picture than of its own.

    A model with little to say of pictures changes less between them than the rounding that is allowed for.
    """
    return any(
        2 * mean_difference(other, row) < mean_difference(own, row)
        for row, own, other in zip(said, alone, exchanged, strict=True)
    )


def _after_prompts(model: Any, rows: Sequence[Encoded], pad: int) -> torch.Tensor:  # noqa: ANN401
    """(rows, vocabulary): log-probabilities of what comes after each prompt, as when it is asked."""
    inputs = stack(rows, pad_token=pad, side="left", device=device_of(model), dtype=model.dtype)
    with torch.inference_mode():
        said = model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    logits: torch.Tensor = said.logits[0]
    return logits.float().log_softmax(dim=-1)


def _in_training(model: Any, rows: Sequence[Encoded], pad: int) -> torch.Tensor:  # noqa: ANN401
    """The same as in training, padded at the other side."""
    inputs = stack(rows, pad_token=pad, side="right", device=device_of(model), dtype=model.dtype)
    with torch.inference_mode():
        logits = model(**inputs, use_cache=False).logits
    ends = [len(row.tokens) - 1 for row in rows]
    last: torch.Tensor = logits[range(len(rows)), ends]
    return last.float().log_softmax(dim=-1)
