"""The student's weights: opened for training, with an adapter, merged, saved as an ordinary folder, and read back."""

import json
import shutil
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from parityalign.config import LevelSettings, LoadingSettings
from parityalign.core import UserError, folder_files, missing_package, write_whole, writing
from parityalign.models import AS_IT_IS, TokenBoxes, open_config, open_model, open_processor, readable_layers
from parityalign.training.facts import without_storage
from parityalign.training.modules import freeze, linear_layers, lr_multipliers_by_module, modules_of

ADAPTER = "adapter"
"""Folder of a levelled student with the adapter that was merged into it."""
_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of peft's."""


def open_student(
    location: str,
    loading: LoadingSettings = AS_IT_IS,
    *,
    weights: Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | None = None,
) -> nn.Module:
    """The student, not quantised.

    Args:
        location: Hugging Face folder or hub id.
        loading: Its revision and device map.
        weights: A checkpoint with other weights of the same architecture; the configuration stays the student's,
            since a trainer writes its own settings (such as no cache) into the checkpoint's.
        dtype: The precision: float32 for full training.
        device: Another device than the machine's best.

    Raises:
        UserError: The location holds no model.
    """
    whole = loading.model_copy(update={"quantise": None})
    return open_model(location, whole, weights=weights, dtype=dtype, device=device)


def open_trainable(
    location: str, loading: LoadingSettings, settings: LevelSettings, *, half: bool, device: str | None = None
) -> nn.Module:
    """The student prepared for its training method, with adapter and frozen parts; initialises the adapter.

    Args:
        location: Hugging Face folder or hub id.
        loading: Its revision and device map.
        settings: The method and the parts to train.
        half: Whether frozen weights below an adapter may be in bfloat16.
        device: Another device than the machine's best, for a student that is trained whole.

    Raises:
        UserError: It cannot be trained this way: a package is missing, or its parts are not known.
    """
    method = settings.decided.method
    refuse_method(method)
    refuse_optimiser(settings.optimiser)
    if method == "qlora":
        model = _in_4_bits(location, loading, half=half)
    elif method == "lora" and half:
        model = open_student(location, loading, dtype=torch.bfloat16)
    else:
        model = open_student(location, loading, device=device)
    return _prepare(model, settings)


def refuse_method(method: str) -> None:
    """Refuses a method that this machine does not support, before a large model is loaded.

    Raises:
        UserError: Something is missing; the message says what.
    """
    if method != "full":
        _peft()
    if method == "qlora" and find_spec("bitsandbytes") is None:
        where = "'parityalign[lora,quantised]', or set level.method: lora"
        raise missing_package("levelling with the method 'qlora'", "bitsandbytes", where)
    if method == "qlora" and not torch.cuda.is_available():
        # On a CPU bitsandbytes packs weights for inference only, without gradients.
        raise UserError("level.method is qlora, which needs a GPU, and this machine has none. Set level.method: lora")


def refuse_optimiser(optimiser: str) -> None:
    """The same for an optimiser.

    Raises:
        UserError: Something is missing; the message says what.
    """
    if optimiser != "adamw_8bit":
        return
    if find_spec("bitsandbytes") is None:
        where = "'parityalign[quantised]', or set level.optimiser: adamw"
        raise missing_package("level.optimiser: adamw_8bit", "bitsandbytes", where)
    if not torch.cuda.is_available():
        raise UserError(
            "level.optimiser is adamw_8bit, which needs a GPU, and this machine has none. Set level.optimiser: adamw"
        )


def refuse_student(location: str, loading: LoadingSettings, settings: LevelSettings) -> None:
    """Refuses a student whose family cannot be trained with the settings, without loading its weights.

    Raises:
        UserError: Its parts are not known, or its attention cannot be read or mapped to pictures.
    """
    rates, attends = lr_multipliers_by_module(settings.decided.lr_multipliers), "attention" in settings.needs
    if rates is None and not attends:
        return
    model = without_storage(location, loading)
    if rates:
        modules_of(model)
    if attends:
        readable_layers(model)
        TokenBoxes(open_processor(location, loading))


def _prepare(model: nn.Module, settings: LevelSettings) -> nn.Module:
    rates = lr_multipliers_by_module(settings.decided.lr_multipliers)
    if settings.gradient_checkpointing:
        # Not re-entrant: with an adapter, no input of the first layer requires a gradient.
        checkpointing: Any = model
        checkpointing.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.decided.method == "full":
        if rates:
            freeze(model, rates)
        return model
    layers = linear_layers(model, rates) if rates else "all-linear"
    alpha, dropout = settings.lora_alpha, settings.lora_dropout
    return add_lora(model, settings.lora_rank, alpha=alpha, dropout=dropout, layers=layers)


def add_lora(
    model: nn.Module,
    rank: int,
    *,
    alpha: float | None = None,
    dropout: float = 0.0,
    layers: str | list[str] = "all-linear",
) -> nn.Module:
    """The frozen model with LoRA (Hu et al. 2021, arXiv:2106.09685) on linear layers.

    Args:
        model: The student.
        rank: The adapters' rank.
        alpha: The adapters' output is scaled by alpha / rank. None: twice the rank, the same scale for all ranks.
        dropout: Dropout of the adapters' inputs.
        layers: Names of the layers; or all but the output head.

    Raises:
        UserError: The package peft is not installed.
    """
    peft = _peft()
    alpha = 2 * rank if alpha is None else alpha
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=layers)
    adapted: nn.Module = peft.get_peft_model(model, config)
    return adapted


def without_casts(model: nn.Module, *, autocast: bool) -> AbstractContextManager[None]:
    """Inside, an adapter takes its input as it is, where autocast is on.

    peft casts it to the adapter's float32, and autocast casts that to bfloat16 again: to the same numbers, in a copy
    for each of the layers that take one input.

    Args:
        model: The student, with an adapter or without.
        autocast: Whether it is used under autocast, and nowhere else.
    """
    if not autocast or not hasattr(model, "peft_config"):
        return nullcontext()
    helpers: Any = import_module("peft.helpers")
    found: AbstractContextManager[None] = helpers.disable_input_dtype_casting(model)
    return found


def open_checkpoint(
    location: str,
    checkpoint: Path | None,
    *,
    adapter: bool,
    loading: LoadingSettings = AS_IT_IS,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The student at a checkpoint of its training, with its adapter not merged; without a checkpoint as it was."""
    if not (adapter and checkpoint):
        return open_student(location, loading, weights=checkpoint, dtype=dtype)
    return _adapted(open_student(location, loading, dtype=dtype), checkpoint)


def open_to_merge(location: str, checkpoint: Path | None, *, loading: LoadingSettings = AS_IT_IS) -> nn.Module:
    """The same of an adapter's checkpoint, in memory beside the GPU and in the precision that it will be stored in.

    In float32 a student of 7 billion weights would take 30 GB of the GPU, which training never needed. Each sum of a
    weight and what the adapter adds to it is computed in float32 and rounded once, as it would be then.
    """
    stored = _stored_dtype(open_config(location, loading))
    model = open_student(location, loading, dtype=stored, device="cpu")
    return _adapted(model, checkpoint) if checkpoint else model


def _adapted(model: nn.Module, checkpoint: Path) -> nn.Module:
    device = str(next(model.parameters()).device)
    adapted: nn.Module = _peft().PeftModel.from_pretrained(model, checkpoint, torch_device=device)
    return adapted.eval()


def merge_adapter(model: nn.Module) -> nn.Module:
    """The model with its adapter merged; unchanged without an adapter."""
    merge: Any = getattr(model, "merge_and_unload", None)
    whole: nn.Module = merge() if merge else model
    return whole


def keep_adapter(checkpoint: Path, out: Path, alpha: float = 1.0, *, student: str, revision: str | None) -> None:
    """Writes a checkpoint's adapter into a folder, as peft opens it on the student that it was trained on.

    Args:
        checkpoint: The folder of the checkpoint.
        out: The folder to write to.
        alpha: What the adapter adds is scaled by this.
        student: Where the student before lies, or its name on the hub.
        revision: Its commit there.

    Raises:
        WorkFailed: The disk refused.
    """
    out.mkdir(parents=True, exist_ok=True)
    # It names the copy of the student that was opened, a folder of this machine's cache.
    config = json.loads((checkpoint / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
    scaled = alpha * config["lora_alpha"]
    config |= {"lora_alpha": int(scaled) if scaled == int(scaled) else scaled}
    config |= {"base_model_name_or_path": student, "revision": revision}
    write_whole(out / _ADAPTER_CONFIG, json.dumps(config, indent=1, sort_keys=True) + "\n")
    with writing(out):
        shutil.copyfile(checkpoint / _ADAPTER_WEIGHTS, out / _ADAPTER_WEIGHTS)


def save_student(location: str, model: nn.Module, out: Path, *, loading: LoadingSettings = AS_IT_IS) -> torch.dtype:
    """Writes an ordinary Hugging Face folder with the precision, configuration and processor of the student.

    Files are moved into the folder when all are written, the weights last, so that a folder with weights is complete.

    Args:
        location: The student's folder or hub id.
        model: The levelled student; converted to the stored precision.
        out: The folder to write to; may exist.
        loading: How the student was loaded; the levelled student keeps its limit of pixels.

    Returns:
        The stored precision.

    Raises:
        WorkFailed: The disk refused.
    """
    part = out.with_name(f".{out.name}.part")
    config = open_config(location, loading)
    stored = _stored_dtype(config)
    student: Any = model.to(dtype=stored)
    student.config = config
    with writing(out):
        shutil.rmtree(part, ignore_errors=True)
        student.save_pretrained(part)
        open_processor(location, loading).save_pretrained(part)
        for name in sorted(folder_files(part), key=lambda name: name.endswith(".safetensors")):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).replace(out / name)
        shutil.rmtree(part)
    return stored


def _stored_dtype(config: PreTrainedConfig) -> torch.dtype:
    """The precision of a folder's weights; float32 if its configuration names none."""
    found = getattr(torch, config.dtype) if isinstance(config.dtype, str) else config.dtype
    return found if isinstance(found, torch.dtype) else torch.float32


def _in_4_bits(location: str, loading: LoadingSettings, *, half: bool) -> nn.Module:
    """The student in 4 bits (Dettmers et al. 2023, arXiv:2305.14314), prepared for an adapter."""
    quantised = loading.model_copy(update={"quantise": "4bit"})
    model = open_model(location, quantised, dtype=torch.bfloat16 if half else torch.float32)
    ready: nn.Module = _peft().prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return ready


def _peft() -> ModuleType:
    try:
        import peft  # noqa: PLC0415
    except ImportError as problem:
        raise missing_package(
            "levelling with the methods 'lora' and 'qlora'", "peft", "'parityalign[lora]'"
        ) from problem
    return peft
