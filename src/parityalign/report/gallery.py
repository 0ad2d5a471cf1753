"""A small exhibition of gaps: what the teacher could read in a picture and the student could not."""

import base64
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from parityalign.pictures import Unfit, read_picture
from parityalign.records import Pair, Verdict, content_id

SIDE = 256
"""Longest side of a thumbnail, in pixels."""


@dataclass(frozen=True)
class Exhibit:
    """One gap as it is shown."""

    pair: Pair
    picture: str | None
    """Data URI of the thumbnail; None where the image cannot be read any more."""
    student: str | None
    teacher: str | None
    """What the two models answered; None where a model was not asked or nothing is known."""


def choose(gaps: Iterable[Pair], *, seed: int, limit: int) -> list[Pair]:
    """Up to `limit` gaps, evenly from all tasks; the same ones whatever order they come in."""
    by_task: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in gaps:
        by_task[pair.task].append(pair)
    for of_task in by_task.values():
        of_task.sort(key=lambda pair: content_id(str(seed), pair.pair_id))
    ranks = zip_longest(*(by_task[task] for task in sorted(by_task)))
    chosen = [pair for rank in ranks for pair in rank if pair is not None]
    return chosen[:limit]


def exhibit(pair: Pair, verdict: Verdict | None) -> Exhibit:
    """A gap with its picture and both models' answers."""
    return Exhibit(
        pair=pair,
        picture=thumbnail(Path(pair.image)),
        student=verdict.student_text if verdict else None,
        teacher=verdict.teacher_text if verdict else None,
    )


def thumbnail(path: Path) -> str | None:
    """The picture as a small data URI, drawn anew so that nothing but its pixels is carried over.

    Returns:
        PNG or JPEG, whichever is smaller; None where the file is missing or broken.
    """
    try:
        picture = read_picture(path)
    except Unfit:
        return None
    picture.thumbnail((SIDE, SIDE))
    return min(_data_uri(picture, "png"), _data_uri(picture, "jpeg"), key=len)


def _data_uri(picture: Image.Image, kind: str) -> str:
    buffer = BytesIO()
    picture.save(buffer, kind, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
