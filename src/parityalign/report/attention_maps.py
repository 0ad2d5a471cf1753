"""Attention maps of both models, laid over the picture of a gap."""

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
from markupsafe import Markup

from parityalign.core import STUDENT, TEACHER, Array, read_index, read_observations, refuse_changed
from parityalign.report.charts import element

DARKEST = 0.75
"""Opacity of the cell with the most attention."""
_FAINTEST = 0.01

Maps = dict[str, dict[str, Array]]
"""By pair, then by model: (cells,) share of attention on the picture's cells, row by row."""


def maps_by_pair(folder: Path, pair_ids: Collection[str]) -> Maps:
    """The available attention maps of the given pairs.

    Args:
        folder: The signals' folder; it may be missing.
        pair_ids: The pairs.

    Raises:
        UserError: The signals are damaged.
    """
    found: Maps = {}
    for who in (TEACHER, STUDENT):
        refuse_changed(folder / f"{who}.jsonl")
        wanted = [line for line in read_index(folder, who) if line.has_places and line.pair_id in pair_ids]
        for shard in {line.shard for line in wanted if line.shard}:
            refuse_changed(folder / shard)
        for line, seen in read_observations(folder, wanted):
            found.setdefault(line.pair_id, {})[who] = seen.places.astype(np.float64)
    return found


def picture(uri: str, size: tuple[int, int], name: str) -> Markup:
    """A picture that `attention_overlay` refers to by name, so that its bytes are in the page only once."""
    image = element("image", id=name, href=uri, width=size[0], height=size[1])
    return _framed(size, "The picture that the question below is about", image)


def attention_overlay(cells: Array, size: tuple[int, int], name: str, who: str) -> Markup:
    """The picture with a square grid of cells over it, the more opaque the more attention it got."""
    side = math.isqrt(len(cells))
    width, height = size[0] / side, size[1] / side
    most = float(cells.max())
    rects = [
        element(
            "rect",
            x=column * width,
            y=row * height,
            width=width,
            height=height,
            fill_opacity=f"{DARKEST * share:.2f}",
        )
        for (row, column), share in np.ndenumerate(cells.reshape(side, side) / (most or 1.0))
        if share > _FAINTEST
    ]
    row, column = divmod(int(cells.argmax()), side)
    told = f"Where the {who} looked: most at row {row + 1}, column {column + 1} of {side} ({100 * most:.0f} %)"
    return _framed(size, told, element("use", href=f"#{name}"), *rects)


def _framed(size: tuple[int, int], told: str, *parts: Markup) -> Markup:
    return element("svg", *parts, viewBox=f"0 0 {size[0]} {size[1]}", role="img", aria_label=told)
