"""Device, precision, attention and quantisation of a model on this machine."""

import os
from importlib.util import find_spec
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from transformers import BitsAndBytesConfig

from parityalign.config import LoadingSettings
from parityalign.core import UserError, missing_package, usable_cores
from parityalign.models.parts import not_in_4_bits

SMALLER = (
    "These settings in `loading` reduce memory (docs/settings.md): dtype: bfloat16; quantise: 4bit; device_map: auto, "
    "which uses all GPUs and CPU memory; fewer `max_pixels`. Or use a smaller model."
)
"""Advice in messages that a model does not fit into memory."""
_NO_MEMORY = ("out of memory", "can't allocate memory")
"""Texts of torch's plain RuntimeErrors for memory that accelerate does not recognise."""


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception means that memory ran out, on any device."""
    said = str(problem)
    known = isinstance(problem, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(RuntimeError(said))
    return known or any(words in said.lower() for words in _NO_MEMORY)


def this_device() -> str:
    """The device of a model that is not spread over several."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of(model: nn.Module) -> torch.device:
    """Where a model takes its inputs and gives its outputs, also where it is spread over several devices.

    Then its first weights may be on any of them, or on none while they wait on the disk; accelerate moves what a part
    needs to where the part is computed.
    """
    spread = getattr(model, "hf_device_map", None) or {}
    if len(set(spread.values())) > 1 or "disk" in spread.values():
        hook: Any = getattr(model, "_hf_hook", None)
        return torch.device(hook.execution_device)
    return next(weights.device for weights in model.parameters())


def gpus_of(model: nn.Module) -> list[torch.device]:
    """The GPUs that hold weights of a model."""
    return list({weights.device for weights in model.parameters() if weights.device.type == "cuda"})


def shares_of_machine(processes: int | None) -> list[dict[str, str]]:
    """The variables by which each of several processes keeps to its share of this machine: a GPU, or so many cores.

    Args:
        processes: How many; more than there are GPUs share them. None: one for each GPU, or one.
    """
    gpus = _gpus()
    count = processes or max(1, len(gpus))
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // count))
    devices = [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {} for number in range(count)]
    return [{"OMP_NUM_THREADS": threads, **device} for device in devices]


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names each."""
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [*map(str, range(count))])[:count]


def dtype_of(loading: LoadingSettings) -> torch.dtype:
    """The precision of a model's weights; `auto` picks what is fast and safe on this machine."""
    if loading.dtype != "auto":
        found: torch.dtype = getattr(torch, loading.dtype)
        return found
    fast = torch.cuda.is_available() and bf16_is_fast(on_gpu=True)
    return torch.bfloat16 if fast else torch.float32


def bf16_is_fast(on_gpu: bool) -> bool:
    """Whether the GPU or the processor multiplies bfloat16 in hardware; emulated it is slower than float32."""
    if on_gpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch allowed
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def placement(loading: LoadingSettings, dtype: torch.dtype | None) -> dict[str, Any]:
    """Precision, device and attention as arguments of `from_pretrained`."""
    asked: dict[str, Any] = {"dtype": dtype or dtype_of(loading)}
    if loading.attention != "auto":
        asked["attn_implementation"] = loading.attention
    if loading.device_map:
        asked["device_map"] = loading.device_map
    if loading.quantise:
        asked["quantization_config"] = quantisation(loading, asked["dtype"])
        asked.setdefault("device_map", {"": this_device()})  # quantised weights cannot be moved afterwards
    return asked


def quantisation(loading: LoadingSettings, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Quantisation by bitsandbytes; to 4 bits of the language model alone, as in QLoRA (arXiv:2305.14314)."""
    make: Any = BitsAndBytesConfig  # untyped
    if loading.quantise == "8bit":
        return make(load_in_8bit=True)  # type: ignore[no-any-return]
    return make(  # type: ignore[no-any-return]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=not_in_4_bits(),  # of 4 bits too, whatever its name
    )


def refuse_machine(loading: LoadingSettings) -> None:
    """Refuses settings that need something that this machine lacks.

    Raises:
        UserError: Something is missing; the message says how to get it.
    """
    if loading.quantise and find_spec("bitsandbytes") is None:
        raise missing_package(f"quantise: {loading.quantise}", "bitsandbytes", "'parityalign[quantised]'")
    if loading.attention == "flash_attention_2" and not torch.cuda.is_available():
        raise UserError("attention is flash_attention_2, which needs a GPU, and this machine has none. Set it to auto.")
    if loading.attention == "flash_attention_2" and find_spec("flash_attn") is None:
        install = "flash-attn --no-build-isolation; or set attention to auto."
        raise missing_package("attention: flash_attention_2", "flash-attn", install)
