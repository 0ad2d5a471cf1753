"""A small sample of what a run is about: some of its pictures, and how many pictures and questions there are."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL.Image import Image, new

from parityalign.config import PREFIX, TaskData, divided
from parityalign.core import Found, Task, UserError
from parityalign.data import Unfit, open_picture, open_questions, open_source


@dataclass(frozen=True)
class SamplingOptions:
    """What a plan may look at, and what is said in place of looking."""

    pictures: int = 32
    """Opened of each task; 0: none."""
    size: tuple[int, int] = (1024, 768)
    """Width and height of a picture, where none is opened."""
    images: int | None = None
    """Of each task; None: they are counted."""
    offline: bool = False
    """Whether the hub is left alone."""


@dataclass(frozen=True)
class Sample:
    """What was found of one task."""

    images: int
    questions: int
    pictures: list[Image]
    """At least one; a blank one of the assumed size where none was opened."""
    assumed: list[str]
    """What was not found but assumed, in words."""


def size_of_picture(text: str) -> tuple[int, int]:
    """Width and height from a text such as `1024x768`.

    Raises:
        UserError: It is none.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise UserError(f"{text!r} is no size of a picture; write width and height in pixels, such as 1024x768")
    return int(found[1]), int(found[2])


def sample(task: Task, data: TaskData, ask: SamplingOptions, *, limit: int | None) -> Sample:
    """Looks at one task of a run.

    Args:
        task: The task.
        data: Where its pictures and questions are.
        ask: What may be looked at.
        limit: Questions that are asked of the test split at most.

    Raises:
        UserError: Nobody knows how many pictures there are.
    """
    questions, assumed = _questions(task, data, limit)
    images = ask.images if ask.images is not None else _count(task, data)
    left_alone = [spec for spec in data.images if ask.offline and _is_in_hub(spec)]
    pictures = list(_pictures([spec for spec in data.images if spec not in left_alone], images, ask.pictures))
    if ask.images is not None:
        assumed.append(f"{images:,} images")
    if left_alone and ask.pictures:
        assumed.append(f"{', '.join(left_alone)} not looked at, since the hub is left alone (--offline)")
    if not pictures:
        assumed.append(f"pictures of {ask.size[0]}x{ask.size[1]} pixels, since none was opened")
    said = [f"{task.name}: {'; '.join(assumed)}"] if assumed else []
    return Sample(images, questions, pictures or [new("RGB", ask.size, "white")], said)


def _count(task: Task, data: TaskData) -> int:
    counts = {spec: open_source(spec).count() for spec in data.images}
    unknown = [spec for spec, count in counts.items() if count is None]
    if unknown:
        raise UserError(
            f"nobody knows how many images {', '.join(unknown)} (task {task.name}) has before the last is read. "
            "Say how many to plan for: --images 5000"
        )
    return sum(count or 0 for count in counts.values())


def _pictures(specs: Iterable[str], images: int, wanted: int) -> Iterator[Image]:
    """Evenly spread over files; the first ones where pictures lie in archives, which have to be read in order."""
    if not wanted:
        return
    sources = [*map(open_source, specs)]
    spread = all(source.holds_files for source in sources)
    found = (each for source in sources for each in source.images())
    chosen = islice(found, 0, None, max(1, images // wanted) if spread else 1)
    yield from islice(_fit(chosen), wanted)


def _fit(found: Iterable[Found]) -> Iterator[Image]:
    for each in found:
        try:
            yield open_picture(each.read()).image
        except Unfit:  # intake will say why
            continue


def _questions(task: Task, data: TaskData, limit: int | None) -> tuple[int, list[str]]:
    """How many questions of the test split will be asked, and what was assumed for it."""
    if data.test is None:
        return 0, []
    if _is_in_hub(data.test):
        return _official(task, data.test, limit)
    rows = sum(1 for _ in open_questions(task, data.test)[0])
    return (min(rows, limit) if limit else rows), []


def _official(task: Task, test: str, limit: int | None) -> tuple[int, list[str]]:
    """The same of a split on the hub, which is not asked: what the benchmark says of itself."""
    official = task.benchmark.questions if task.benchmark else None
    if official is not None:
        found = min(official, limit) if limit else official
        return found, [f"{found:,} questions, as many as are published or `evaluate.limit` allows"]
    if limit:
        return limit, [f"{limit:,} questions, as `evaluate.limit` allows; nobody knows how many {test} has"]
    return 0, [f"no question of {test}, as nobody knows how many it has; set `evaluate.limit` to plan for them"]


def _is_in_hub(spec: str) -> bool:
    """Whether images or questions come from the hub, not from a folder or file in the form of its data sets."""
    return spec.startswith(PREFIX) and not Path(divided(spec.removeprefix(PREFIX))[0]).exists()
