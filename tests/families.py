"""The families of vision-language models, tiny and untrained: transformers' real classes in folders as on the hub.

What a folder holds is written here part by part and not by a processor's `save_pretrained`, since the folders on the
hub are older than that, and since half of the processors cannot be made without torchvision.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

import spellings

SIDE, PATCH = 32, 8
SQUARE = {"height": SIDE, "width": SIDE}
CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}
GRIDS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
_CLIP_PLACES = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


@dataclass(frozen=True)
class Family:
    """How a tiny model of a family is made, and what its users should know."""

    name: str
    processor: str
    """The processor's class, which is named in its file only."""
    model: Callable[["Parts"], hf.PreTrainedModel]
    tokenizer: Callable[[], hf.PreTrainedTokenizerBase]
    chat_template: str
    image_processor: hf.BaseImageProcessor
    stop: tuple[str, ...]
    """What the folder's generation settings name as ends."""
    answer_ends: str
    """The token after an answer of which the family was trained."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What `processor_config.json` says; without it there is no such file."""
    seed: int = 7
    """One with which it says several things of eight pictures and ends at several places."""


class Parts:
    """What the configuration of a model is made of, with the ids of one tokenizer."""

    def __init__(self, tokenizer: hf.PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def id(self, token: str) -> int:
        """A special token's id."""
        found: int = self.tokenizer.convert_tokens_to_ids(token)
        return found

    def text(self, **more: Any) -> dict[str, Any]:
        """The sizes of a language model."""
        return {
            "vocab_size": len(self.tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "pad_token_id": self.tokenizer.pad_token_id,
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            **more,
        }

    def qwen_ids(self) -> dict[str, int]:
        """What Qwen's configurations name."""
        names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
        ids = {f"{kind}_token_id": self.id(token) for kind, token in names.items()}
        return ids | {f"vision_{edge}_token_id": self.id(f"<|vision_{edge}|>") for edge in ("start", "end")}


def tower(**more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return sizes | {"image_size": SIDE, "patch_size": PATCH, **more}


def _qwen2_vl(parts: Parts) -> hf.PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    text = parts.text(rope_parameters=rope)
    config = hf.Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **parts.qwen_ids())
    return hf.Qwen2VLForConditionalGeneration(config)


def _qwen2_5_vl(parts: Parts) -> hf.PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
    text = parts.text(rope_parameters=rope)
    config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **parts.qwen_ids())
    return hf.Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(parts: Parts) -> hf.PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 10000.0}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    text = parts.text(rope_parameters=rope, head_dim=8)
    config = hf.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **parts.qwen_ids())
    return hf.Qwen3VLForConditionalGeneration(config)


def _idefics3(parts: Parts) -> hf.PreTrainedModel:
    text = {"model_type": "llama", **parts.text()}
    ids = {"image_token_id": parts.id("<image>"), "pad_token_id": parts.tokenizer.pad_token_id}
    config = hf.Idefics3Config(text_config=text, vision_config=tower(), scale_factor=2, **ids)
    return hf.Idefics3ForConditionalGeneration(config)


def _smolvlm(parts: Parts) -> hf.PreTrainedModel:
    text = {"model_type": "llama", **parts.text()}
    ids = {"image_token_id": parts.id("<image>"), "pad_token_id": parts.tokenizer.pad_token_id}
    config = hf.SmolVLMConfig(text_config=text, vision_config=tower(), scale_factor=2, **ids)
    return hf.SmolVLMForConditionalGeneration(config)


def _internvl(parts: Parts) -> hf.PreTrainedModel:
    vision = tower(image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH])
    text = {"model_type": "qwen2", **parts.text()}
    ids = {"image_token_id": parts.id("<IMG_CONTEXT>"), "image_seq_length": 4}
    return hf.InternVLForConditionalGeneration(hf.InternVLConfig(vision_config=vision, text_config=text, **ids))


def _llava(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "clip_vision_model", **tower(projection_dim=16)}
    text = {"model_type": "llama", **parts.text()}
    ids = {"image_token_index": parts.id("<image>"), "image_seq_length": (SIDE // PATCH) ** 2}
    return hf.LlavaForConditionalGeneration(hf.LlavaConfig(vision_config=vision, text_config=text, **ids))


def _llava_next(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "clip_vision_model", **tower(projection_dim=16)}
    text = {"model_type": "mistral", **parts.text()}
    ids = {"image_token_index": parts.id("<image>"), "image_grid_pinpoints": GRIDS}
    return hf.LlavaNextForConditionalGeneration(hf.LlavaNextConfig(vision_config=vision, text_config=text, **ids))


def _llava_onevision(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **tower()}
    text = {"model_type": "qwen2", **parts.text()}
    ids = {"image_token_index": parts.id("<image>"), "video_token_index": parts.id("<video>")}
    config = hf.LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_grid_pinpoints=GRIDS, vision_aspect_ratio="anyres_max_4", **ids
    )
    return hf.LlavaOnevisionForConditionalGeneration(config)


def _paligemma(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **tower(projection_dim=32)}
    text = {"model_type": "gemma", **parts.text(head_dim=8, num_image_tokens=(SIDE // PATCH) ** 2)}
    ids = {"image_token_index": parts.id("<image>"), "projection_dim": 32, "hidden_size": 32}
    ids |= {name: getattr(parts.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return hf.PaliGemmaForConditionalGeneration(hf.PaliGemmaConfig(vision_config=vision, text_config=text, **ids))


def _gemma3(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **tower(image_size=2 * SIDE)}
    kinds = ["sliding_attention", "full_attention"]
    text = parts.text(head_dim=8, sliding_window=8, query_pre_attn_scalar=8, layer_types=kinds)
    places = {"image": "<image_soft_token>", "boi": "<start_of_image>", "eoi": "<end_of_image>"}
    ids = {f"{name}_token_index": parts.id(token) for name, token in places.items()}
    return hf.Gemma3ForConditionalGeneration(
        hf.Gemma3Config(vision_config=vision, text_config=text, mm_tokens_per_image=16, **ids)
    )


def _fast_vlm(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    text = {"model_type": "qwen2", **parts.text()}
    ids = {"image_token_index": parts.id("<image>"), "image_seq_length": (SIDE // PATCH) ** 2}
    vision |= {"layer_type": "basic", "hidden_size": 16}
    return hf.FastVlmForConditionalGeneration(hf.FastVlmConfig(vision_config=vision, text_config=text, **ids))


IM_ENDS = ("<|im_end|>", "<|endoftext|>")
_PIXELS = {"min_pixels": 2 * 28 * 28, "max_pixels": 9 * 28 * 28}
_TILES = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}

FAMILIES = [
    Family(
        "Qwen2-VL",
        "Qwen2VLProcessor",
        _qwen2_vl,
        spellings.qwen,
        spellings.QWEN2,
        Qwen2VLImageProcessorPil(**_PIXELS),
        IM_ENDS,
        "<|im_end|>",
    ),
    Family(
        "Qwen2.5-VL",
        "Qwen2_5_VLProcessor",
        _qwen2_5_vl,
        spellings.qwen,
        spellings.QWEN2,
        Qwen2VLImageProcessorPil(**_PIXELS),
        IM_ENDS,
        "<|im_end|>",
    ),
    Family(
        "Qwen3-VL",
        "Qwen3VLProcessor",
        _qwen3_vl,
        spellings.qwen,
        spellings.QWEN3,
        Qwen2VLImageProcessorPil(patch_size=16, min_pixels=2 * 32 * 32, max_pixels=9 * 32 * 32),
        IM_ENDS,
        "<|im_end|>",
    ),
    Family(
        "SmolVLM",
        "SmolVLMProcessor",
        _smolvlm,
        spellings.smolvlm,
        spellings.SMOLVLM,
        SmolVLMImageProcessorPil(**_TILES),
        ("<end_of_utterance>",),
        "<end_of_utterance>",
        {"image_seq_len": 4},
    ),
    Family(
        "Idefics3",
        "Idefics3Processor",
        _idefics3,
        spellings.idefics,
        spellings.IDEFICS,
        Idefics3ImageProcessorPil(**_TILES),
        ("<|end_of_text|>", "<end_of_utterance>"),
        "<end_of_utterance>",
        {"image_seq_len": 4},
    ),
    Family(
        "InternVL",
        "InternVLProcessor",
        _internvl,
        spellings.internvl,
        spellings.INTERNVL,
        GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4),
        ("<|im_end|>",),
        "<|im_end|>",
        {"image_seq_length": 4},
    ),
    Family(
        "LLaVA",
        "LlavaProcessor",
        _llava,
        spellings.llama,
        spellings.LLAVA,
        CLIPImageProcessorPil(**CROPPED),
        ("</s>",),
        "</s>",
        _CLIP_PLACES,
    ),
    Family(
        "LLaVA-NeXT",
        "LlavaNextProcessor",
        _llava_next,
        spellings.llama,
        spellings.MISTRAL,
        LlavaNextImageProcessorPil(**CROPPED, image_grid_pinpoints=GRIDS),
        ("</s>",),
        "</s>",
        _CLIP_PLACES,
    ),
    Family(
        "LLaVA-OneVision",
        "LlavaOnevisionProcessor",
        _llava_onevision,
        spellings.onevision,
        spellings.ONEVISION,
        LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=GRIDS),
        ("<|im_end|>",),
        "<|im_end|>",
        {
            "num_image_tokens": (SIDE // PATCH) ** 2,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_4",
        },
    ),
    Family(
        "PaliGemma",
        "PaliGemmaProcessor",
        _paligemma,
        spellings.paligemma,
        spellings.PALIGEMMA,
        SiglipImageProcessorPil(size=SQUARE, image_seq_length=(SIDE // PATCH) ** 2),
        ("<eos>",),
        "<eos>",
    ),
    Family(
        "Gemma 3",
        "Gemma3Processor",
        _gemma3,
        spellings.gemma3,
        spellings.GEMMA3,
        Gemma3ImageProcessorPil(size={"height": 2 * SIDE, "width": 2 * SIDE}),
        ("<eos>", "<end_of_turn>"),
        "<end_of_turn>",
        {"image_seq_length": 16},
    ),
    Family(
        "FastVLM",
        "LlavaProcessor",
        _fast_vlm,
        spellings.onevision,
        spellings.FASTVLM,
        CLIPImageProcessorPil(size=SQUARE, do_center_crop=False),
        ("<|im_end|>",),
        "<|im_end|>",
        {"patch_size": PATCH, "vision_feature_select_strategy": "full", "num_additional_image_tokens": 0},
    ),
]


def write(folder: Path, family: Family, *, speaks: bool = True) -> Path:
    """The folder of a family's tiny model.

    Args:
        folder: Gets it.
        family: How it is made.
        speaks: Whether its weights are made so wide that it says something of each picture.
    """
    tokenizer = family.tokenizer()
    tokenizer.chat_template = family.chat_template
    tokenizer.save_pretrained(folder)
    family.image_processor.save_pretrained(folder)
    _name_processor(folder / "preprocessor_config.json", family)
    if family.settings:
        _name_processor(folder / "processor_config.json", family)
    torch.manual_seed(family.seed)
    model = family.model(Parts(tokenizer))
    ends = [tokenizer.convert_tokens_to_ids(token) for token in family.stop]
    if speaks:
        _have_something_to_say(model, ends)
    model.generation_config = hf.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    return folder


def _name_processor(file: Path, family: Family) -> None:
    said = json.loads(file.read_text()) if file.exists() else dict(family.settings)
    # The folders on the hub name the image processor without its backend.
    if "image_processor_type" in said:
        said["image_processor_type"] = said["image_processor_type"].removesuffix("Pil")
    file.write_text(json.dumps(said | {"processor_class": family.processor}))


def _have_something_to_say(model: hf.PreTrainedModel, ends: list[int]) -> None:
    """Weights so wide that an untrained model says something else of each picture, and ends somewhere."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            scale = 0.1 if "embed_tokens" in name else 3.0 / math.sqrt(weight[0].numel())
            torch.nn.init.normal_(weight, std=scale)
    for name, statistic in model.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(statistic, std=0.1)
    with torch.no_grad():
        model.get_output_embeddings().weight[ends] *= 1.8
