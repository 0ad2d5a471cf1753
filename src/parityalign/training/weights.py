"""The student's weights: opened for training, given an adapter, merged, and saved as an ordinary folder."""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from parityalign.disk import folder_files, writing
from parityalign.errors import UserError
from parityalign.opening import open_model, open_processor


def open_student(location: str, weights: Path | None = None) -> nn.Module:
    """The student in float32, as training wants it.

    Args:
        location: Hugging Face folder or hub id.
        weights: A checkpoint with other weights of the same architecture; the configuration stays the student's,
            since a trainer writes its own habits (such as no cache) into the checkpoint's.

    Raises:
        UserError: The location holds no model.
    """
    return open_model(location, weights=weights, dtype=torch.float32)


def with_adapter(model: nn.Module, rank: int) -> nn.Module:
    """The model frozen, with LoRA beside every linear layer but the output head.

    Scaled by alpha = 2 * rank, after Hu et al. 2021 (arXiv:2106.09685), who keep alpha / rank fixed.

    Raises:
        UserError: The package peft is not installed.
    """
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    adapted: nn.Module = peft.get_peft_model(model, config)
    return adapted


def open_checkpoint(location: str, checkpoint: Path, *, adapter: bool) -> nn.Module:
    """The student as it was at a checkpoint of its training, with the adapter merged into its weights if it is one."""
    if not adapter:
        return open_student(location, checkpoint)
    adapted = _peft().PeftModel.from_pretrained(open_student(location), checkpoint)
    merged: nn.Module = adapted.merge_and_unload()
    return merged


def save_like(location: str, model: nn.Module, out: Path) -> None:
    """Writes an ordinary Hugging Face folder with the precision, configuration and processor of the student.

    Nothing is written in place: files are moved into the folder when all are there, the weights last, so that a folder
    with weights is a whole one.

    Args:
        location: Where the student is.
        model: The levelled student; changed to the stored precision.
        out: The folder to write to; may exist.

    Raises:
        WorkFailed: The disk refused.
    """
    part = out.with_name(f".{out.name}.part")
    config = AutoConfig.from_pretrained(location, trust_remote_code=False)
    student: Any = model.to(dtype=_stored_dtype(config))
    student.config = config
    with writing(out):
        shutil.rmtree(part, ignore_errors=True)
        student.save_pretrained(part)
        open_processor(location).save_pretrained(part)
        for name in sorted(folder_files(part), key=lambda name: name.endswith(".safetensors")):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).replace(out / name)
        shutil.rmtree(part)


def _stored_dtype(config: PreTrainedConfig) -> torch.dtype:
    """The precision that a folder's weights are in; float32 where its configuration names none."""
    found = getattr(torch, config.dtype) if isinstance(config.dtype, str) else config.dtype
    return found if isinstance(found, torch.dtype) else torch.float32


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as problem:
        raise UserError(
            "levelling with the method 'lora' needs the package peft, which is not installed.\n"
            "Install it: pip install 'parityalign[lora]'"
        ) from problem
    return peft
