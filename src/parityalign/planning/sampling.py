"""A small sample of a run's data: some pictures, and the numbers of pictures and questions."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import process_time

from PIL.Image import Image, new

from parityalign.config import PREFIX, TaskData, divided
from parityalign.core import Found, Question, Source, Task, UserError
from parityalign.data import Unfit, count_pairs, open_picture, open_questions, open_source, pairs_source


@dataclass(frozen=True)
class SamplingOptions:
    """What a plan may read, and values to assume instead."""

    pictures: int = 32
    """Pictures to open per task; 0: none."""
    size: tuple[int, int] = (1024, 768)
    """Assumed width and height of pictures if none is opened."""
    images: int | None = None
    """Images per task; None: they are counted."""
    offline: bool = False
    """Whether to avoid the hub."""


@dataclass(frozen=True)
class Sample:
    """The sample of one task."""

    images: int
    questions: int
    pictures: list[Image]
    """At least one picture; a blank one of the assumed size if none was opened."""
    assumed: list[str]
    """The assumptions, as text."""
    own: int = 0
    """Pairs of one's own."""
    to_answer: int = 0
    """Those of them that the teacher's answers make pairs."""
    reading: float = 0.0
    """CPU seconds that a picture takes to be read; 0 if none was opened."""
    asked: tuple[Question, ...] = ()
    """The first questions of a test split that lies here, as many as pictures may be opened."""
    opened: bool = True
    """Whether the pictures are some of the run's own, and not a blank one."""


def size_of_picture(text: str) -> tuple[int, int]:
    """Width and height from a text such as `1024x768`.

    Raises:
        UserError: It is malformed.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise UserError(f"{text!r} is not the size of an image; write width and height in pixels, such as 1024x768")
    return int(found[1]), int(found[2])


def sample(task: Task, data: TaskData, ask: SamplingOptions, *, limit: int | None) -> Sample:
    """Samples one task of a run.

    Args:
        task: The task.
        data: Its pictures and questions.
        ask: What may be read.
        limit: Most questions of the test split that are asked.

    Raises:
        UserError: The number of images is unknown.
    """
    questions, first, assumed = _questions(task, data, limit, ask.pictures)
    chosen = ask.images is not None and bool(data.images)
    images = ask.images if ask.images is not None and chosen else _count(task, data)
    counts = [(spec, count_pairs(spec, task.name)) for spec in data.pairs]
    own = sum(count for _, count in counts)
    to_answer = sum(count for spec, count in counts if spec.answers == "teacher")
    left_alone = [spec for spec in data.images if ask.offline and _is_in_hub(spec)]
    began = process_time()
    pictures = list(_pictures(_sources(task, data, left_alone), images + own, ask.pictures)) if ask.pictures else []
    reading = (process_time() - began) / len(pictures) if pictures else 0.0
    if chosen:
        assumed.append(f"{images:,} images")
    if left_alone and ask.pictures:
        assumed.append(f"{', '.join(left_alone)} not read (--offline)")
    if not pictures:
        assumed.append(f"pictures of {ask.size[0]}x{ask.size[1]} pixels, since none was opened")
    said = [f"{task.name}: {'; '.join(assumed)}"] if assumed else []
    shown = pictures or [new("RGB", ask.size, "white")]
    return Sample(images, questions, shown, said, own, to_answer, reading, asked=first, opened=bool(pictures))


def _count(task: Task, data: TaskData) -> int:
    counts = {spec: open_source(spec).count() for spec in data.images}
    unknown = [spec for spec, count in counts.items() if count is None]
    if unknown:
        raise UserError(
            f"the task {task.name} reads {', '.join(unknown)}, a stream of unknown length. "
            "Say how many images to plan for, such as --images 5000"
        )
    return sum(count or 0 for count in counts.values())


def _sources(task: Task, data: TaskData, left_alone: Collection[str]) -> list[Source]:
    images = [open_source(spec) for spec in data.images if spec not in left_alone]
    return images + [pairs_source(spec, task.name) for spec in data.pairs]


def _pictures(sources: Sequence[Source], images: int, wanted: int) -> Iterator[Image]:
    """Evenly spaced files; the first ones of archives, which have to be read in order."""
    spread = all(source.holds_files for source in sources)
    found = (each for source in sources for each in source.images())
    chosen = islice(found, 0, None, max(1, images // wanted) if spread else 1)
    yield from islice(_fit(chosen), wanted)


def _fit(found: Iterable[Found]) -> Iterator[Image]:
    for each in found:
        try:
            yield open_picture(each.read()).image
        except Unfit:  # intake will report it
            continue


def _questions(task: Task, data: TaskData, limit: int | None, few: int) -> tuple[int, tuple[Question, ...], list[str]]:
    """How many questions of the test split will be asked, the first few with a file as their image, the assumptions."""
    if data.test is None:
        return 0, (), []
    if _is_in_hub(data.test):
        questions, assumed = _official(task, data.test, limit)
        return questions, (), assumed
    rows, first = 0, list[Question]()
    for row in open_questions(task, data.test)[0]:
        rows += 1
        if len(first) < few and row.picture is None and Path(row.question.image).is_file():
            first.append(row.question)
    return (min(rows, limit) if limit else rows), tuple(first), []


def _official(task: Task, test: str, limit: int | None) -> tuple[int, list[str]]:
    """The same for a split on the hub without reading it, from the benchmark's published size."""
    official = task.benchmark.questions if task.benchmark else None
    if official is not None:
        found = min(official, limit) if limit else official
        return found, [f"{found:,} questions, as many as are published or `evaluate.limit` allows"]
    if limit:
        return limit, [f"{limit:,} questions, as `evaluate.limit` allows; the size of {test} is unknown"]
    return 0, [f"no question of {test}, since its size is unknown; set `evaluate.limit` to plan for them"]


def _is_in_hub(spec: str) -> bool:
    """Whether images or questions come from the hub rather than from a local copy of a data set."""
    return spec.startswith(PREFIX) and not Path(divided(spec.removeprefix(PREFIX))[0]).exists()
