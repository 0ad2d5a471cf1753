"""Attention maps of both models, laid over the picture of a pair."""

import math
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from markupsafe import Markup

from parityalign.core import (
    STUDENT,
    TEACHER,
    Array,
    ObservationRef,
    read_index,
    read_observations,
    refuse_changed,
)
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
        for pair_id, cells in maps_at(folder, wanted):
            found.setdefault(pair_id, {})[who] = cells
    return found


def maps_at(folder: Path, lines: Collection[ObservationRef]) -> Iterator[tuple[str, Array]]:
    """The attention maps that lines of an index refer to, each with its pair's id.

    Args:
        folder: The signals' folder.
        lines: Those of pairs that have one.

    Raises:
        UserError: The signals are damaged.
    """
    for shard in {line.shard for line in lines if line.shard}:
        refuse_changed(folder / shard)
    for line, seen in read_observations(folder, lines):
        yield line.pair_id, seen.places.astype(np.float64)


def picture(uri: str, size: tuple[int, int], name: str) -> Markup:
    """A picture that `attention_overlay` refers to by name, so that its bytes are in the page only once."""
    image = element("image", id=name, href=uri, width=size[0], height=size[1])
    return _framed(size, "The picture that the question below is about", image)


def attention_overlay(cells: Array, size: tuple[int, int], name: str, who: str) -> Markup:
    """The picture with the cells over it."""
    return _framed(size, _told(cells, who), element("use", href=f"#{name}"), *_rectangles(cells, size))


def attention_grid(cells: Array, who: str) -> Markup:
    """The cells alone, for a page that lays them over a picture whatever its size."""
    side = math.isqrt(len(cells))
    return _framed((side, side), _told(cells, who), *_rectangles(cells, (side, side)), preserveAspectRatio="none")


def _rectangles(cells: Array, size: tuple[int, int]) -> list[Markup]:
    """A square grid over a picture of that size, the more opaque the more attention a cell got."""
    side = math.isqrt(len(cells))
    width, height = size[0] / side, size[1] / side
    most = float(cells.max())
    return [
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


def _told(cells: Array, who: str) -> str:
    side = math.isqrt(len(cells))
    row, column = divmod(int(cells.argmax()), side)
    most = 100 * float(cells.max())
    return f"Where the {who} looked: most at row {row + 1}, column {column + 1} of {side} ({most:.0f} %)"


def _framed(size: tuple[int, int], told: str, *parts: Markup, **attributes: object) -> Markup:
    return element("svg", *parts, viewBox=f"0 0 {size[0]} {size[1]}", role="img", aria_label=told, **attributes)
