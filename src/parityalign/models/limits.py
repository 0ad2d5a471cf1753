"""How much goes through a model at once: what batches are cut by, and what a plan reckons with."""

from transformers import PreTrainedConfig

CPU_TOKENS = 16384
"""Tokens and patches at once where there is no GPU; more of them bring no more speed."""
MOST_TOKENS = 131_072
"""The same on a GPU, whatever its memory."""
_SHARE_OF_FREE = 0.5
"""Of the GPU's free memory; the rest is for what no estimate knows."""
_HIDDEN_STATES = 24
"""How many numbers of a layer's width a token has in memory while it goes through that layer."""


def tokens_in_memory(free: float, cached: int, hidden: int, itemsize: int) -> int:
    """How many tokens and patches of a model go at once on a GPU.

    Args:
        free: Bytes that are left beside the weights.
        cached: Numbers that are kept of each token.
        hidden: Width of the language model's layers.
        itemsize: Bytes of a number.
    """
    return max(1, int(free * _SHARE_OF_FREE / ((cached + _HIDDEN_STATES * hidden) * itemsize)))


def cached_numbers(text: PreTrainedConfig) -> int:
    """Numbers that a language model keeps of each token: keys and values of all layers."""
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return int(2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads) * size)


def patch_side(config: PreTrainedConfig) -> int:
    """Pixels along the side of a patch of the vision tower; 0 where the tower has no patches."""
    side = getattr(getattr(config, "vision_config", None), "patch_size", None) or 0
    return int(max(side) if isinstance(side, list | tuple) else side)
