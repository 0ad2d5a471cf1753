"""What this machine computes with: device, precision, attention and quantised weights for a model that is loaded."""

from importlib.util import find_spec
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import BitsAndBytesConfig

from parityalign.config import LoadingSettings
from parityalign.core import UserError, missing_package

SMALLER = (
    "What would help, in `loading` of the run (docs/settings.md): dtype: bfloat16; quantise: 4bit; device_map: auto, "
    "which uses all GPUs and the memory; fewer `max_pixels`; or a smaller model."
)
"""The end of a message that a model does not fit."""
_NO_MEMORY = ("out of memory", "can't allocate memory")
"""What torch says in a plain RuntimeError where accelerate does not know its wording."""


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether this is what is raised, on some device, when memory has run out."""
    said = str(problem)
    known = isinstance(problem, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(RuntimeError(said))
    return known or any(words in said.lower() for words in _NO_MEMORY)


def this_device() -> str:
    """Where a model goes that is not spread over several places."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype_of(loading: LoadingSettings) -> torch.dtype:
    """What a model's numbers are kept in; `auto` comes to what this machine multiplies fast and safely."""
    if loading.dtype != "auto":
        found: torch.dtype = getattr(torch, loading.dtype)
        return found
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32


def placement(loading: LoadingSettings, dtype: torch.dtype | None) -> dict[str, Any]:
    """In what, where and how the model computes, as arguments of `from_pretrained`."""
    asked: dict[str, Any] = {"dtype": dtype or dtype_of(loading)}
    if loading.attention != "auto":
        asked["attn_implementation"] = loading.attention
    if loading.device_map:
        asked["device_map"] = loading.device_map
    if loading.quantise:
        asked["quantization_config"] = quantisation(loading, asked["dtype"])
        asked.setdefault("device_map", {"": this_device()})  # such weights cannot be moved afterwards
    return asked


def quantisation(loading: LoadingSettings, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How bitsandbytes keeps the weights; 4 bits as in QLoRA (Dettmers et al. 2023, arXiv:2305.14314)."""
    make: Any = BitsAndBytesConfig  # untyped
    if loading.quantise == "8bit":
        return make(load_in_8bit=True)  # type: ignore[no-any-return]
    return make(  # type: ignore[no-any-return]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def refuse_machine(loading: LoadingSettings) -> None:
    """Refuses settings that this machine lacks something for.

    Raises:
        UserError: Says what is missing and how to get it.
    """
    if loading.quantise and find_spec("bitsandbytes") is None:
        raise missing_package(f"quantise: {loading.quantise}", "bitsandbytes", "'parityalign[quantised]'")
    if loading.attention == "flash_attention_2" and not torch.cuda.is_available():
        raise UserError("attention is flash_attention_2, which needs a GPU, and this machine has none. Set it to auto.")
    if loading.attention == "flash_attention_2" and find_spec("flash_attn") is None:
        install = "flash-attn --no-build-isolation; or set attention to auto."
        raise missing_package("attention: flash_attention_2", "flash-attn", install)
