"""Augmented views of a picture: slightly cropped, rescaled and recoloured."""

from random import Random

from PIL import Image, ImageEnhance

_CROPPED = 0.06
"""Largest crop at either side, as a share of width or height: what a question is about may be close to the edge."""
_SCALED = (0.75, 1.25)
_TURNED = 0.25
"""Largest relative change of brightness, contrast and saturation; hue stays, since questions ask for colours."""


def augmented_view(picture: Image.Image, seed: str) -> Image.Image:
    """The picture cropped, scaled and recoloured, deterministic in picture and seed.

    Args:
        picture: In RGB.
        seed: Such as the pair's identity.
    """
    rng = Random(seed)
    width, height = picture.size
    left, right = (rng.uniform(0, _CROPPED) * width for _ in range(2))
    top, bottom = (rng.uniform(0, _CROPPED) * height for _ in range(2))
    scale = rng.uniform(*_SCALED)
    size = max(1, round((width - left - right) * scale)), max(1, round((height - top - bottom) * scale))
    box = (left, top, width - right, height - bottom)
    view = picture.resize(size, Image.Resampling.BICUBIC, box=box)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = enhance(view).enhance(1 + rng.uniform(-_TURNED, _TURNED))
    return view
