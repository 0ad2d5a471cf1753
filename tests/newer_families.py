"""Further families, of the newest transformers: `families.py` goes on here."""

from importlib.util import find_spec
from typing import Any

import transformers as hf
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil
from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import spellings
from families import CROPPED, GRIDS, IM_ENDS, PATCH, SIDE, SQUARE, Family, Parts, tower


def _qwen3_5(parts: Parts) -> hf.PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 10000.0}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 16, "num_position_embeddings": 16}
    linear: dict[str, Any] = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
    linear |= {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]}
    text = parts.text(rope_parameters=rope | {"partial_rotary_factor": 0.5}, head_dim=16, **linear)
    config = hf.Qwen3_5Config(text_config=text, vision_config=vision, tie_word_embeddings=True, **parts.qwen_ids())
    return hf.Qwen3_5ForConditionalGeneration(config)


def _glm46v(parts: Parts) -> hf.PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"image_size": 56, "patch_size": 14}
    names = {"image": "<|image|>", "video": "<|video|>"}
    ids = {f"{kind}_token_id": parts.id(token) for kind, token in names.items()}
    ids |= {f"{kind}_start_token_id": parts.id(f"<|begin_of_{kind}|>") for kind in names}
    ids |= {f"{kind}_end_token_id": parts.id(f"<|end_of_{kind}|>") for kind in names}
    text = parts.text(rope_parameters=rope)
    return hf.Glm46VForConditionalGeneration(hf.Glm46VConfig(text_config=text, vision_config=vision, **ids))


def _granite4_vision(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **tower(hidden_size=64)}
    places = {"deepstack_layer_map": [[-1, 0]], "spatial_target_layers": [1], "downsample_rate": "1/2"}
    places |= {"image_grid_pinpoints": GRIDS, "vision_feature_select_strategy": "full", "vision_feature_layer": -1}
    former = {"model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 32, "projector_dropout": 0.0}
    former |= {"cross_attention_frequency": 1, "use_qformer_text_input": False}
    config = hf.Granite4VisionConfig(
        text_config=parts.text(attention_multiplier=8**-0.5),
        vision_config=vision,
        qformer_config=former,
        image_token_index=parts.id("<image>"),
        **places,
    )
    return hf.Granite4VisionForConditionalGeneration(config)


def _gemma4(parts: Parts) -> hf.PreTrainedModel:
    """With parts of the small ones, which hear and whose last layers use others' keys and values, and of large ones."""
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"num_key_value_heads": 2, "head_dim": 8, "patch_size": PATCH, "pooling_kernel_size": 2}
    vision |= {"position_embedding_size": 256, "use_clipped_linears": True}
    audio = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "output_proj_dims": 32}
    audio |= {"subsampling_conv_channels": [8, 4]}
    layers = {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4}
    layers |= {"num_kv_shared_layers": 2, "use_double_wide_mlp": True, "sliding_window": 16}
    sizes = {"head_dim": 8, "global_head_dim": 16, "hidden_size_per_layer_input": 8}
    sizes |= {"vocab_size_per_layer_input": len(parts.tokenizer)}
    text = parts.text(use_bidirectional_attention="vision", **layers, **sizes)
    places = {"boi": "<|image>", "eoi": "<image|>", "image": "<|image|>", "video": "<|video|>"}
    ids = {f"{name}_token_id": parts.id(token) for name, token in places.items()}
    return hf.Gemma4ForConditionalGeneration(
        hf.Gemma4Config(text_config=text, vision_config=vision, audio_config=audio, **ids)
    )


def _lfm3_vl(parts: Parts) -> hf.PreTrainedModel:
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"]}
    kinds = ["conv", "sliding_attention", "full_attention"]
    text = parts.text(head_dim=8, layer_types=kinds, num_hidden_layers=3, conv_L_cache=3, sliding_window=16)
    config = hf.Lfm3VlConfig(text_config=text, vision_config=vision, projector_hidden_size=32, **parts.qwen_ids())
    return hf.Lfm3VlForConditionalGeneration(config)


def _minicpm_v(parts: Parts) -> hf.PreTrainedModel:
    linear: dict[str, Any] = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
    linear |= {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]}
    text = parts.text(head_dim=16, **linear)
    ids = {f"{kind}_token_id": parts.id(f"<|{kind}_pad|>") for kind in ("image", "video")}
    config = hf.MiniCPMV4_6Config(
        text_config=text, vision_config=tower(), image_size=2 * SIDE, insert_layer_id=0, tie_word_embeddings=True, **ids
    )
    return hf.MiniCPMV4_6ForConditionalGeneration(config)


def _aya_vision(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **tower()}
    kinds = ["sliding_attention", "full_attention"]
    text = {"model_type": "cohere2", **parts.text(layer_types=kinds, sliding_window=64)}
    config = hf.AyaVisionConfig(
        vision_config=vision, text_config=text, downsample_factor=2, image_token_index=parts.id("<|IMG_PATCH|>")
    )
    return hf.AyaVisionForConditionalGeneration(config)


def _ovis2(parts: Parts) -> hf.PreTrainedModel:
    edges = [parts.id(f"<IMG_{name}>") for name in ("START", "GRID", "COL", "ROW", "END")]
    vision = tower(vocab_size=24 + len(edges), hidden_stride=2)
    text = {"model_type": "qwen2", **parts.text()}
    config = hf.Ovis2Config(
        text_config=text,
        vision_config=vision,
        image_token_id=parts.id("<IMG_ATOM>"),
        visual_indicator_token_ids=edges,
        vocab_size=text["vocab_size"],
        hidden_size=text["hidden_size"],
    )
    return hf.Ovis2ForConditionalGeneration(config)


NEWER_FAMILIES = [
    Family(
        "Qwen3.5",
        "Qwen3VLProcessor",
        _qwen3_5,
        spellings.qwen,
        spellings.QWEN3,
        Qwen2VLImageProcessorPil(patch_size=16, min_pixels=2 * 32 * 32, max_pixels=9 * 32 * 32),
        IM_ENDS,
        "<|im_end|>",
        seed=12,
    ),
    Family(
        "GLM-4.6V",
        "Glm46VProcessor",
        _glm46v,
        spellings.glm,
        spellings.GLM,
        Glm46VImageProcessorPil(size={"shortest_edge": 2 * 28 * 28, "longest_edge": 9 * 28 * 28}),
        ("<|endoftext|>", "<|user|>"),
        "<|endoftext|>",  # its template writes no end behind an answer
        seed=1,
    ),
    Family(
        "Granite 4 Vision",
        "Granite4VisionProcessor",
        _granite4_vision,
        spellings.granite,
        spellings.GRANITE,
        LlavaNextImageProcessorPil(**CROPPED, image_grid_pinpoints=GRIDS),
        ("<|end_of_text|>",),
        "<|end_of_text|>",
        {"patch_size": PATCH, "vision_feature_select_strategy": "full", "downsample_rate": "1/2"},
        seed=6,
    ),
    Family(
        "Gemma 4",
        "Gemma4Processor",
        _gemma4,
        spellings.gemma4,
        spellings.GEMMA4,
        Gemma4ImageProcessorPil(patch_size=PATCH, max_soft_tokens=140, pooling_kernel_size=2),
        ("<eos>", "<turn|>"),
        "<turn|>",
        {"image_seq_length": 140, "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"}},
    ),
    Family(
        "LFM3-VL",
        "Lfm3VlProcessor",
        _lfm3_vl,
        spellings.lfm,
        spellings.LFM,
        Qwen2VLImageProcessorPil(patch_size=16, min_pixels=2 * 32 * 32, max_pixels=9 * 32 * 32),
        ("<|im_end|>",),
        "<|im_end|>",
    ),
    Family(
        "MiniCPM-V 4.6",
        "MiniCPMV4_6Processor",
        _minicpm_v,
        spellings.minicpm,
        spellings.MINICPM,
        MiniCPMV4_6ImageProcessorPil(scale_resolution=2 * SIDE, patch_size=PATCH, max_slice_nums=4),
        IM_ENDS,
        "<|im_end|>",
        seed=1,
    ),
    Family(
        "Aya Vision",
        "AyaVisionProcessor",
        _aya_vision,
        spellings.cohere,
        spellings.COHERE,
        GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4),
        ("<|END_OF_TURN_TOKEN|>",),
        "<|END_OF_TURN_TOKEN|>",
        {"patch_size": PATCH, "img_size": SIDE, "downsample_factor": 2},
    ),
    Family(
        "Ovis2",
        "Ovis2Processor",
        _ovis2,
        spellings.ovis,
        spellings.FASTVLM,
        Ovis2ImageProcessorPil(size=SQUARE, crop_to_patches=True, max_patches=4),
        ("<|im_end|>",),
        "<|im_end|>",
        {"image_seq_length": 4},
    ),
]

if find_spec("torchvision"):  # make conformance-torchvision
    from torchvision_families import TORCHVISION_FAMILIES
else:
    TORCHVISION_FAMILIES = []
LONG_FAMILIES = [*NEWER_FAMILIES, *TORCHVISION_FAMILIES]
"""Those that take a minute more (make test-long, make conformance)."""
