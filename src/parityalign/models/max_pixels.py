"""Limits the pixels of an image, whatever the family's setting is called.

The count is of pixels that enter the vision tower, since they decide how many tokens an image takes: all tiles, and
the small copy of the whole image where the family adds one.
"""

from collections.abc import Callable
from math import isqrt
from typing import Any

from parityalign.core import UserError

USUAL_PIXELS = 1280 * 28 * 28
"""A megapixel: 1,280 tokens of Qwen-VL, the limit that its authors recommend."""

_SOFT_TOKENS = (70, 140, 280, 560, 1120)
"""Numbers of tokens that Gemma 4 may spend on a picture."""


def usual_limit(image_processor: Any) -> int | None:  # noqa: ANN401 - each family has its own, untyped
    """A limit of pixels for families that take pictures of nearly any size; None for those that have one of their own.

    Qwen-VL makes 16,384 tokens of a photo of a telephone.
    """
    if not hasattr(image_processor, "merge_size"):
        return None
    own = image_processor.size["longest_edge"] // _frames(image_processor)
    return USUAL_PIXELS if own > USUAL_PIXELS else None


def limit_pixels(image_processor: Any, pixels: int) -> None:  # noqa: ANN401 - each family has its own, untyped
    """Changes an image processor so that no image takes more than so many pixels; never raises its limit.

    Raises:
        UserError: Its minimum is higher, or its family is not known here.
    """
    kind, size = type(image_processor).__name__, dict(image_processor.size or {})
    limit = next((limit for name, limit in _limits().items() if getattr(image_processor, name, None)), None)
    if limit:
        limit(image_processor, size, pixels)
    elif hasattr(image_processor, "max_patches") and "height" in size:
        _limit_tiles(image_processor, size, pixels)
    elif set(size) == {"longest_edge"} and getattr(image_processor, "patch_size", None):
        _limit_longest_edge(image_processor, size, pixels)
    elif getattr(image_processor, "do_center_crop", False) or "height" in size:
        _refuse_below(kind, _fixed_area(image_processor), pixels)
    else:
        raise UserError(
            f"max_pixels is {pixels}, but parityalign cannot limit the pixels of a {kind} with size {size}. "
            "Leave the setting out, or make the images smaller."
        )


def _limits() -> dict[str, Callable[[Any, dict[str, int], int], None]]:
    """By the setting that an image processor is known by; the first counts."""
    return {
        "merge_size": _limit_area,
        "max_soft_tokens": _limit_soft_tokens,
        "max_image_tokens": _limit_tokens_and_tiles,
        "max_crops": _limit_crops,
        "max_slice_nums": _limit_slices,
        "max_image_size": _limit_tiles_a_side,
        "image_grid_pinpoints": _limit_grids,
    }


def shared_grids(image_processor: Any) -> list[list[int]] | None:  # noqa: ANN401
    """The tilings that LLaVA-NeXT or LLaVA-OneVision may choose from; the model's configuration needs them too."""
    return getattr(image_processor, "image_grid_pinpoints", None) or None


def _refuse_below(kind: str, least: int, pixels: int) -> None:
    if pixels < least:
        raise UserError(
            f"max_pixels is {pixels}, but a {kind} always uses {least} or more. Set at least that, or leave it out."
        )


def _limit_area(image_processor: Any, size: dict[str, int], pixels: int) -> None:  # noqa: ANN401
    """Qwen-VL, GLM-V: width times height, whatever the edges are called; GLM-V counts both frames of a still."""
    times = _frames(image_processor)
    least = (image_processor.patch_size * image_processor.merge_size) ** 2
    _refuse_below(type(image_processor).__name__, least, pixels)
    most = min(pixels * times, size["longest_edge"])
    # Small images are enlarged to the lower bound and then rounded up, to at most twice the width and height.
    image_processor.size = {**size, "longest_edge": most, "shortest_edge": min(size["shortest_edge"], most // 4)}


def _frames(image_processor: Any) -> int:  # noqa: ANN401
    """How often a family counts the pixels of a still."""
    return image_processor.temporal_patch_size if "Glm" in type(image_processor).__name__ else 1


def _limit_soft_tokens(image_processor: Any, _: dict[str, int], pixels: int) -> None:  # noqa: ANN401
    """Gemma 4: the tokens of a picture, of which its processor takes a few numbers only."""
    token = (image_processor.patch_size * image_processor.pooling_kernel_size) ** 2
    _refuse_below(type(image_processor).__name__, _SOFT_TOKENS[0] * token, pixels)
    within = max(tokens for tokens in _SOFT_TOKENS if tokens * token <= pixels)
    image_processor.max_soft_tokens = min(image_processor.max_soft_tokens, within)


def _limit_tiles_a_side(image_processor: Any, size: dict[str, int], pixels: int) -> None:  # noqa: ANN401
    """Idefics3, SmolVLM: the longer edge in tiles, at most its square in all, plus one of the whole image."""
    tile = image_processor.max_image_size["longest_edge"]
    _refuse_below(type(image_processor).__name__, tile**2, pixels)
    tiles = pixels // tile**2
    image_processor.size = {**size, "longest_edge": min(size["longest_edge"], max(1, isqrt(tiles - 1)) * tile)}


def _limit_tiles(image_processor: Any, size: dict[str, int], pixels: int) -> None:  # noqa: ANN401
    """InternVL: the number of tiles; if there are several, plus one of the whole image."""
    tile = size["height"] * size["width"]
    _refuse_below(type(image_processor).__name__, tile, pixels)
    image_processor.max_patches = min(image_processor.max_patches, max(1, pixels // tile - 1))
    image_processor.min_patches = min(image_processor.min_patches, image_processor.max_patches)


def _limit_crops(image_processor: Any, _: dict[str, int], pixels: int) -> None:  # noqa: ANN401
    """Molmo2: the number of overlapping crops, plus one of the whole image."""
    tile = _fixed_area(image_processor)
    _refuse_below(type(image_processor).__name__, 2 * tile, pixels)
    image_processor.max_crops = min(image_processor.max_crops, pixels // tile - 1)


def _limit_slices(image_processor: Any, _: dict[str, int], pixels: int) -> None:  # noqa: ANN401
    """MiniCPM-V: the number of slices, plus one of the whole image, each of about as many pixels as such a square.

    Sides are rounded to whole tokens, so slices of very long pictures may be larger.
    """
    tile = image_processor.scale_resolution**2
    _refuse_below(type(image_processor).__name__, tile, pixels)
    image_processor.max_slice_nums = min(image_processor.max_slice_nums, max(1, pixels // tile - 1))


def _limit_tokens_and_tiles(image_processor: Any, _: dict[str, int], pixels: int) -> None:  # noqa: ANN401
    """LFM2-VL: the tokens of the whole image, and the number of tiles of a large one besides."""
    token = (image_processor.encoder_patch_size * image_processor.downsample_factor) ** 2
    _refuse_below(type(image_processor).__name__, image_processor.min_image_tokens * token, pixels)
    image_processor.max_image_tokens = min(image_processor.max_image_tokens, pixels // token)
    tiles = (pixels - image_processor.max_image_tokens * token) // image_processor.tile_size**2
    image_processor.max_tiles = min(image_processor.max_tiles, max(tiles, image_processor.min_tiles))
    image_processor.do_image_splitting &= tiles >= image_processor.min_tiles


def _limit_longest_edge(image_processor: Any, size: dict[str, int], pixels: int) -> None:  # noqa: ANN401
    """Pixtral and Mistral 3: the longer edge, in tokens of two patches a side, which sides are rounded up to."""
    patch = image_processor.patch_size
    token = 2 * (patch if isinstance(patch, int) else max(dict(patch).values()))
    _refuse_below(type(image_processor).__name__, token**2, pixels)
    image_processor.size = {**size, "longest_edge": min(size["longest_edge"], isqrt(pixels) // token * token)}


def _limit_grids(image_processor: Any, _: dict[str, int], pixels: int) -> None:  # noqa: ANN401
    """LLaVA-NeXT, LLaVA-OneVision: tilings that a model chooses from, and one tile of the whole image."""
    tile, grids = _fixed_area(image_processor), image_processor.image_grid_pinpoints
    _refuse_below(type(image_processor).__name__, min(height * width for height, width in grids) + tile, pixels)
    image_processor.image_grid_pinpoints = [[h, w] for h, w in grids if h * w + tile <= pixels]


def _fixed_area(image_processor: Any) -> int:  # noqa: ANN401
    """Pixels that a whole image, or a tile, is resized and perhaps cropped to."""
    cut = getattr(image_processor, "do_center_crop", False)
    sides = dict(image_processor.crop_size if cut else image_processor.size)
    area: int = sides["height"] * sides["width"]
    return area
