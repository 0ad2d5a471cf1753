"""A small exhibition of gaps: what the teacher could read in a picture and the student could not."""

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

from parityalign.core import Array, Pair, Verdict, content_id
from parityalign.data import Unfit, read_picture
from parityalign.report.attention_maps import attention_overlay, picture

SIDE = 256
"""Longest side of a thumbnail, in pixels."""


class Thumbnail(NamedTuple):
    """A small picture."""

    uri: str
    """PNG or JPEG, as data."""
    size: tuple[int, int]
    """Width and height in pixels."""


@dataclass(frozen=True)
class Exhibit:
    """One gap as it is shown."""

    pair: Pair
    picture: Thumbnail | None
    """None where the image cannot be read any more."""
    student: str | None
    teacher: str | None
    """What the two models answered; None where a model was not asked or nothing is known."""
    drawn: Markup | None = None
    """The picture once more, as a drawing that `looks` repeat; None without them."""
    looks: Mapping[str, Markup] = field(default_factory=dict)
    """Where each model looked on the picture, as far as that is known."""


def choose_gaps(gaps: Iterable[Pair], *, seed: int, limit: int) -> list[Pair]:
    """Up to `limit` gaps, evenly from all tasks; the same ones whatever order they come in."""
    by_task: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in gaps:
        by_task[pair.task].append(pair)
    for of_task in by_task.values():
        of_task.sort(key=lambda pair: content_id(str(seed), pair.pair_id))
    ranks = zip_longest(*(by_task[task] for task in sorted(by_task)))
    chosen = [pair for rank in ranks for pair in rank if pair is not None]
    return chosen[:limit]


def exhibit(pair: Pair, verdict: Verdict | None, maps: Mapping[str, Array]) -> Exhibit:
    """A gap with its picture, both models' answers, and where on the picture they looked, as far as that is known."""
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
    """The picture made small, drawn anew so that nothing but its pixels is carried over.

    Returns:
        PNG or JPEG, whichever takes less; None where the file is missing or broken.
    """
    try:
        small = read_picture(path)
    except Unfit:
        return None
    small.thumbnail((SIDE, SIDE))
    return Thumbnail(min(_data_uri(small, "png"), _data_uri(small, "jpeg"), key=len), small.size)


def _data_uri(picture: Image.Image, kind: str) -> str:
    buffer = BytesIO()
    picture.save(buffer, kind, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
