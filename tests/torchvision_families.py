"""Families whose pictures transformers prepares with torchvision alone; imported only where it is installed."""

import transformers as hf
from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor
from transformers.models.pixtral.image_processing_pixtral import PixtralImageProcessor

import spellings
from families import IM_ENDS, PATCH, SIDE, Family, Parts, tower


def _lfm2_vl(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "siglip2_vision_model", "vision_use_head": False, **tower(num_patches=16)}
    kinds = ["full_attention", "conv", "full_attention"]
    text = parts.text(layer_types=kinds, num_hidden_layers=3, conv_L_cache=3)
    config = hf.Lfm2VlConfig(
        text_config=text, vision_config=vision, projector_hidden_size=32, image_token_id=parts.id("<image>")
    )
    return hf.Lfm2VlForConditionalGeneration(config)


def _molmo2(parts: Parts) -> hf.PreTrainedModel:
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, **heads}
    vision |= {"image_size": [SIDE, SIDE], "patch_size": PATCH}
    adapter = {
        "vision_feature_layer": [1, 0],
        "hidden_size": 16,
        "intermediate_size": 32,
        "text_hidden_size": 32,
        **heads,
    }
    edges = {"image_start": "im_start", "image_end": "im_end", "low_res_image_start": "low_res_im_start"}
    edges |= {"frame_start": "frame_start", "frame_end": "frame_end"}
    config = hf.Molmo2Config(
        text_config=parts.text(head_dim=8, additional_vocab_size=0),
        vision_config=vision,
        adapter_config=adapter,
        image_patch_id=parts.id("<im_patch>"),
        **{f"{name}_token_id": parts.id(f"<{edge}>") for name, edge in edges.items()},
    )
    return hf.Molmo2ForConditionalGeneration(config)


def _mistral3(parts: Parts) -> hf.PreTrainedModel:
    vision = {"model_type": "pixtral", **tower(head_dim=8, image_size=4 * SIDE)}
    text = {"model_type": "mistral", **parts.text(head_dim=8)}
    config = hf.Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=parts.id("[IMG]"), spatial_merge_size=2
    )
    return hf.Mistral3ForConditionalGeneration(config)


TORCHVISION_FAMILIES = [
    Family(
        "LFM2-VL",
        "Lfm2VlProcessor",
        _lfm2_vl,
        spellings.lfm2,
        spellings.LFM2,
        Lfm2VlImageProcessor(
            encoder_patch_size=PATCH, tile_size=SIDE, max_image_tokens=8, min_image_tokens=2, max_tiles=4
        ),
        ("<|im_end|>",),
        "<|im_end|>",
        seed=1,
    ),
    Family(
        "Molmo2",
        "Molmo2Processor",
        _molmo2,
        spellings.molmo,
        spellings.MOLMO,
        Molmo2ImageProcessor(
            size={"height": SIDE, "width": SIDE}, patch_size=PATCH, overlap_margins=[1, 1], max_crops=4
        ),
        IM_ENDS,
        "<|im_end|>",
        seed=2,
    ),
    Family(
        "Mistral 3",
        "PixtralProcessor",
        _mistral3,
        spellings.mistral3,
        spellings.MISTRAL3,
        PixtralImageProcessor(patch_size=PATCH, size={"longest_edge": 4 * SIDE}),
        ("</s>",),
        "</s>",
        {"patch_size": PATCH, "spatial_merge_size": 2},
    ),
]
