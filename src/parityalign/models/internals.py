"""What is taken from the inside of transformers, which no version promises to keep: here and in `_generate.py`."""

from typing import Any

from transformers import DynamicCache, PreTrainedConfig

from parityalign.models.versions import unknown_transformers

try:
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.auto.processing_auto import processor_class_from_name
    from transformers.video_processing_utils import BaseVideoProcessor
except ImportError as problem:
    raise unknown_transformers(f"keeps its parts ({problem.name}: {problem})") from problem

__all__ = [
    "ALL_ATTENTION_FUNCTIONS",
    "ALL_MASK_ATTENTION_FUNCTIONS",
    "BaseVideoProcessor",
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "cached_layers",
    "processor_class_from_name",
]


def cached_layers(config: PreTrainedConfig) -> list[Any]:
    """What each layer of a model's language model keeps while it reads: tokens, those of a window, or a state."""
    return list(DynamicCache(config=config.get_text_config(decoder=True)).layers)
