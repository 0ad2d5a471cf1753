"""A gallery of gaps: pictures and questions that the teacher has right and the student wrong."""

import base64
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, TypeVar

from markupsafe import Markup
from PIL import Image

from parityalign.core import BY_CONTENT, Array, Pair, Verdict, content_id
from parityalign.data import Unfit, image_id, open_picture, read_bytes
from parityalign.report.attention_maps import attention_overlay, picture

T = TypeVar("T")

SIDE = 320
"""Longest side of a thumbnail, in pixels."""
MOST_BYTES = 36_000
"""Of a thumbnail in the page, so that 60 of them leave it below 3 MB."""
_QUALITIES = (85, 70, 55, 40, 25)


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
    return choose_evenly(gaps, lambda pair: (pair.task, pair.pair_id), seed=seed, limit=limit)


def choose_evenly(found: Iterable[T], named: Callable[[T], tuple[str, str]], *, seed: int, limit: int) -> list[T]:
    """Up to `limit` of what was found, evenly from all tasks, independent of its order.

    Args:
        found: What to choose from.
        named: Task and identity of each.
        seed: Of the choice.
        limit: The most.
    """
    by_task: defaultdict[str, list[T]] = defaultdict(list)
    for each in found:
        by_task[named(each)[0]].append(each)
    for of_task in by_task.values():
        of_task.sort(key=lambda each: content_id(str(seed), named(each)[1]))
    ranks = zip_longest(*(by_task[task] for task in sorted(by_task)))
    return [each for rank in ranks for each in rank if each is not None][:limit]


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
        PNG or JPEG, whichever is smaller, of at most `MOST_BYTES`; None if the file is missing or broken, or is not
        what it is named by.
    """
    try:
        content = read_bytes(path)
        if path.parent.parent.name == BY_CONTENT and image_id(content) != path.stem:
            return None
        small = open_picture(content).image
    except Unfit:
        return None
    small.thumbnail((SIDE, SIDE))
    return Thumbnail(_within(MOST_BYTES, small), small.size)


def _within(most: int, small: Image.Image) -> str:
    """The picture as PNG or JPEG, whichever is smaller, and as JPEG as fine as there is room for."""
    plain, uri = _data_uri(small, "png"), ""
    for quality in _QUALITIES:
        uri = min(plain, _data_uri(small, "jpeg", quality=quality), key=len)
        if len(uri) <= most:
            break
    return uri


def _data_uri(picture: Image.Image, kind: str, **options: int) -> str:
    buffer = BytesIO()
    picture.save(buffer, kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
