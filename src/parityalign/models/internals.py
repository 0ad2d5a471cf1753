"""What is taken from the inside of transformers, which no version promises to keep: here and in `_generate.py`."""

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
    "processor_class_from_name",
]
