"""A gallery of gaps: pictures and questions that the teacher has right and the student wrong."""

import base64
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup
from PIL import Image

from parityalign.core import BY_CONTENT, Array, Pair, Verdict, content_id
from parityalign.data import Unfit, image_id, open_picture, read_bytes
from parityalign.report.attention_maps import attention_overlay, picture

SIDE = 256
"""Longest side of a thumbnail, in pixels."""


class Thumbnail(NamedTuple):
    """A small picture."""

    uri: str
    """PNG or JPEG bytes."""
    size: tuple[int, int]
    """Width and height in pixels."""


@dataclass(frozen=True)
class Exhibit:
    """One gap for the gallery."""

    pair: Pair
    picture: Thumbnail | None
    """None if the image can no longer be read."""
    student: str | None
    teacher: str | None
    """The two models' answers; None if a model was not asked or its answer is missing."""
    drawn: Markup | None = None
    """The picture as an SVG that the drawings of `looks` refer to; None without them."""
    looks: Mapping[str, Markup] = field(default_factory=dict)
    """Each model's attention on the picture, if known."""


def choose_gaps(gaps: Iterable[Pair], *, seed: int, limit: int) -> list[Pair]:
    """Up to `limit` gaps, evenly from all tasks, independent of their order."""
    by_task: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in gaps:
        by_task[pair.task].append(pair)
    for of_task in by_task.values():
        of_task.sort(key=lambda pair: content_id(str(seed), pair.pair_id))
    ranks = zip_longest(*(by_task[task] for task in sorted(by_task)))
    chosen = [pair for rank in ranks for pair in rank if pair is not None]
    return chosen[:limit]


def exhibit(pair: Pair, verdict: Verdict | None, maps: Mapping[str, Array]) -> Exhibit:
    """A gap with its picture, both models' answers, and their attention on the picture if known."""
    small = thumbnail(Path(pair.image))
    name = f"picture-{pair.pair_id}"
    return Exhibit(
        pair=pair,
        picture=small,
        student=verdict.student_text if verdict else None,
        teacher=verdict.teacher_text if verdict else None,
        drawn=picture(*small, name) if small and maps else None,
        looks={who: attention_overlay(cells, small.size, name, who) for who, cells in maps.items()} if small else {},
    )


def thumbnail(path: Path) -> Thumbnail | None:
    """A thumbnail, re-encoded so that it holds only pixels and no metadata.

    Returns:
        PNG or JPEG, whichever is smaller; None if the file is missing or broken, or is not what it is named by.
    """
    try:
        content = read_bytes(path)
        if path.parent.parent.name == BY_CONTENT and image_id(content) != path.stem:
            return None
        small = open_picture(content).image
    except Unfit:
        return None
    small.thumbnail((SIDE, SIDE))
    return Thumbnail(min(_data_uri(small, "png"), _data_uri(small, "jpeg"), key=len), small.size)


def _data_uri(picture: Image.Image, kind: str) -> str:
    buffer = BytesIO()
    picture.save(buffer, kind, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
