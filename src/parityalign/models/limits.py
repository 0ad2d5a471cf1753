"""How much goes through a model at once: what batches are cut by, and what a plan reckons with."""

from typing import NamedTuple

from transformers import PreTrainedConfig

CPU_TOKENS = 16384
"""Tokens and patches at once where there is no GPU; more of them bring no more speed."""
_SHARE_OF_FREE = 0.6
"""Of the GPU's free memory; the rest is for what no estimate knows."""
_HIDDEN_STATES = 24
"""How many numbers of a layer's width a token has in memory while it goes through that layer."""
_CACHE_COPIES = 1.5
"""Cache, with the copies of a layer that grow it and repeat its heads."""


class Room(NamedTuple):
    """The most that may go through a model at once.

    The vision tower has done its work when the language model begins, which needs memory for both kinds of its tokens.
    """

    written: float
    """Tokens that are kept: of each reply its prompt, padding and reply."""
    read: float
    """Tokens of distinct prompts."""
    patches: float
    """Patches of distinct pictures."""

    def share(self, written: float, read: float, patches: float) -> float:
        """How much of it so much takes; 1: all."""
        return max(patches / self.patches, written / self.written + read / self.read)


ROOM_OF_CPU = Room(CPU_TOKENS, float("inf"), CPU_TOKENS)


def room_of_gpu(free: float, cached: int, widths: tuple[int, int], itemsize: int) -> Room:
    """The room of a model on a GPU.

    Args:
        free: Bytes that are left beside the weights.
        cached: Numbers that are kept of each token.
        widths: Of the language model's layers, and of the vision tower's.
        itemsize: Bytes of a number.
    """
    numbers = max(0.0, free) * _SHARE_OF_FREE / itemsize
    language, vision = (_HIDDEN_STATES * max(1, width) for width in widths)
    return Room(*(max(1.0, numbers / each) for each in (_CACHE_COPIES * cached, language, vision)))


def cached_numbers(text: PreTrainedConfig) -> int:
    """Numbers that a language model keeps of each token: keys and values of all layers.

    Layers may have heads of their own, as in Gemma 4.
    """
    layers = getattr(text, "per_layer_config", None) or [text] * text.num_hidden_layers
    return sum(map(_kept_by, layers))


def _kept_by(layer: PreTrainedConfig) -> int:
    heads = layer.num_attention_heads
    size = getattr(layer, "head_dim", None) or layer.hidden_size // heads
    return int(2 * (getattr(layer, "num_key_value_heads", None) or heads) * size)


def patch_side(config: PreTrainedConfig) -> int:
    """Pixels along the side of a patch of the vision tower; 0 where the tower has no patches."""
    side = getattr(getattr(config, "vision_config", None), "patch_size", None) or 0
    return int(max(side) if isinstance(side, list | tuple) else side)
