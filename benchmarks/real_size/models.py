"""Folders as on the hub: published architectures, untrained weights in bfloat16; `tiny` keeps all but the sizes."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import BaseImageProcessor, PreTrainedModel
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from parityalign.planning.published import architecture

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import families  # noqa: E402

_hf: Any = transformers
PUBLISHED = {
    "qwen2-vl-7b": "Qwen/Qwen2-VL-7B-Instruct",
    "qwen2-vl-2b": "Qwen/Qwen2-VL-2B-Instruct",
    "smolvlm-500m": "HuggingFaceTB/SmolVLM-500M-Instruct",
}
_SMALL_TEXT = {
    **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2},
}
_SEED = 7


def write_model(name: str, folder: Path, *, tiny: bool) -> Path:
    """The folder of one of `PUBLISHED`, written unless it is whole already."""
    whole = folder / "whole.json"
    said = json.dumps({"name": name, "tiny": tiny})
    if whole.exists() and whole.read_text() == said:
        return folder
    published = architecture(PUBLISHED[name])
    if published is None:
        raise LookupError(f"{PUBLISHED[name]} is not among the published architectures")
    config = json.loads((published / "config.json").read_text())
    make = _qwen2_vl if config["model_type"] == "qwen2_vl" else _idefics3
    family, build = make(config, tiny)
    _write(folder, family, build)
    whole.write_text(said)
    return folder


_Build = Callable[[families.Parts], PreTrainedModel]


def _qwen2_vl(config: dict[str, Any], tiny: bool) -> tuple[families.Family, _Build]:
    family = _family("Qwen2-VL", Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=12845056))

    def build(parts: families.Parts) -> PreTrainedModel:
        sections = [2, 3, 3] if tiny else [16, 24, 24]
        rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e6}
        text = _text(config, parts, tiny) | {"rope_parameters": rope, "max_position_embeddings": 32768}
        vision = _without_type(config["vision_config"])
        if tiny:
            vision |= {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2}
        made = _hf.Qwen2VLConfig(
            text_config=text,
            vision_config=vision,
            tie_word_embeddings=config["tie_word_embeddings"],
            **parts.qwen_ids(),
        )
        model: PreTrainedModel = _hf.Qwen2VLForConditionalGeneration(made)
        return model

    return family, build


def _idefics3(config: dict[str, Any], tiny: bool) -> tuple[families.Family, _Build]:
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512})
    family = dataclasses.replace(
        _family("SmolVLM", pictures),
        **{"name": "Idefics3", "processor": "Idefics3Processor", "settings": {"image_seq_len": 64}},
    )

    def build(parts: families.Parts) -> PreTrainedModel:
        text = _text(config, parts, tiny) | {"model_type": "llama", "max_position_embeddings": 8192}
        vision = _without_type(config["vision_config"])
        if tiny:
            text["head_dim"] = 16
            vision |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        ids = {"image_token_id": parts.id("<image>"), "pad_token_id": parts.tokenizer.pad_token_id}
        sizes = {"scale_factor": config["scale_factor"], "tie_word_embeddings": False}
        made = _hf.Idefics3Config(text_config=text, vision_config=vision, **sizes, **ids)
        model: PreTrainedModel = _hf.Idefics3ForConditionalGeneration(made)
        return model

    return family, build


def _family(name: str, pictures: BaseImageProcessor) -> families.Family:
    known = next(each for each in families.FAMILIES if each.name == name)
    return dataclasses.replace(known, image_processor=pictures)


def _text(config: dict[str, Any], parts: families.Parts, tiny: bool) -> dict[str, Any]:
    ends = {name: getattr(parts.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return _without_type(config["text_config"]) | ends | (_SMALL_TEXT if tiny else {})


def _without_type(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "model_type"}


def _write(folder: Path, family: families.Family, build: _Build) -> None:
    def in_bfloat16(parts: families.Parts) -> PreTrainedModel:
        torch.manual_seed(_SEED)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
                return build(parts)
        finally:
            torch.set_default_dtype(before)

    families.write(folder, dataclasses.replace(family, model=in_bfloat16), speaks=False)
