"""The teacher's draws: which image, which kind of question, which seed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from parityalign.config import AnnotateSettings
from parityalign.core import ImageRef, Task, content_id
from parityalign.engines import Asked


class Draw(NamedTuple):
    """One request for a pair."""

    asked: Asked
    kind: str
    """The kind of question that is asked for; empty where the task has none."""
    number: int
    """Counts the draws on an image, from 0; those from `annotate.pairs_per_image` on are further ones."""


def draw_of(image: ImageRef, task: Task, teacher: str, number: int, seed: int, kind: str | None = None) -> Draw:
    """One draw on an image.

    Args:
        image: The image.
        task: Whose prompt is asked.
        teacher: The teacher's name.
        number: Of the draw.
        seed: The run's; with image, task and number it decides the draw.
        kind: What is asked for. None: the seed decides.
    """
    drawn = int(content_id(image.image_id, task.name, str(number), str(seed))[:12], 16)
    kind = task.kind_of(drawn) if kind is None else kind
    reply_id = content_id(image.image_id, task.name, teacher, str(number))
    prompt = task.annotate_prompt_for(kind)
    return Draw(Asked(reply_id, image.path, prompt, "", image.image_id, drawn), kind, number)


def draws_of(images: Sequence[ImageRef], task: Task, teacher: str, settings: AnnotateSettings, seed: int) -> list[Draw]:
    """The ordinary draws on the images of a task, image by image.

    Args:
        images: Of any tasks.
        task: Whose images are asked about.
        teacher: The teacher's name.
        settings: How many on each image, and whether they go through all kinds before one comes again.
        seed: The run's.
    """
    own = [image for image in images if image.task == task.name]
    return [draw for image in own for draw in _on_image(image, task, teacher, settings, seed)]


def _on_image(image: ImageRef, task: Task, teacher: str, settings: AnnotateSettings, seed: int) -> Iterator[Draw]:
    kinds = task.kinds_in_turn(image.image_id, seed) if settings.kinds_in_turn else []
    for number in range(settings.pairs_per_image):
        yield draw_of(image, task, teacher, number, seed, kinds[number % len(kinds)] if kinds else None)


def by_image(draws: Sequence[Draw]) -> Iterator[list[Draw]]:
    """The draws on each image in the order of their numbers; images as they come first."""
    of_image: dict[str, list[Draw]] = {}
    for draw in draws:
        of_image.setdefault(draw.asked.image_id, []).append(draw)
    yield from (sorted(each, key=lambda draw: draw.number) for each in of_image.values())
