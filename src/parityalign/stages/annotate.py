"""Annotate (the paper's Pseudo Annotator): the teacher writes questions and answers for unlabelled images.

It uses no labels. Every raw reply is kept, with its outcome.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from parityalign.config import AnnotateSettings
from parityalign.core import (
    Answer,
    Artifact,
    Decoding,
    ImageRef,
    Pair,
    Progress,
    Reply,
    Says,
    Stream,
    Task,
    refuse_changed,
)
from parityalign.engines import CachedModel
from parityalign.stages._annotator import Annotator
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.drawing import draws_of
from parityalign.stages.intake import ACCEPTED, accepted_images, image_with_path
from parityalign.stages.own_pairs import (
    OK,
    GivenRow,
    counts_of_rows,
    files_of_pairs,
    given_rows,
    own_questions,
    pair_of,
    take_own_pairs,
)
from parityalign.stages.parsing import NoPair, ParsedPair, read_pair

REPLIES = "replies.jsonl"
PAIRS = "pairs.jsonl"


def _work(run: StageRun, artifact: Artifact) -> None:
    images, config = run.artifact("images"), run.config
    about = asked_images(images)
    _take_own(run, artifact, about)
    annotate_images(
        artifact, about, run.tasks, run.teacher, settings=config.annotate, seed=config.seed, progress=run.progress
    )


def _take_own(run: StageRun, artifact: Artifact, about: Sequence[ImageRef]) -> None:
    """Takes the pairs of one's own; the teacher answers the questions among them that have no answer."""
    images, config = run.artifact("images"), run.config
    files = files_of_pairs(config, run.tasks)
    if not files:
        return
    questions, settings = own_questions(files, images), config.identify
    said: dict[str, Answer] = {}
    if questions:
        short = Decoding(settings.max_new_tokens)  # as identify asks, which then asks nothing again
        draws = [
            draw.asked
            for task in run.tasks.values()
            for draw in draws_of(about, task, run.teacher.name, config.annotate, config.seed)
        ]
        run.teacher.announce((questions, short), (draws, config.annotate.decoding))
        said = run.teacher.answer(
            questions,
            decoding=short,
            batch_size=settings.batch_size,
            on_progress=lambda done, total: run.progress("annotate own questions", done, total),
        )
    take_own_pairs(artifact, images, files, said)


STAGE = Stage(
    "annotate",
    artifact="pairs",
    of=("images", "own pairs", "teacher model", "annotate prompt"),
    settings=("annotate", "seed"),
    derives=True,
    work=_work,
    help="Have the teacher write questions and answers for the images.",
)


def annotate_images(
    artifact: Artifact,
    images: Sequence[ImageRef],
    tasks: Mapping[str, Task],
    teacher: CachedModel,
    *,
    settings: AnnotateSettings,
    seed: int,
    progress: Progress,
) -> None:
    """Asks the teacher for pairs on every image, each with the prompt of the task it came in with.

    Pairs of one's own that the artifact has already come after the teacher's; a teacher's pair that asks what one of
    them asks is none.

    Args:
        artifact: Gets `replies.jsonl` and `pairs.jsonl`.
        images: Accepted by intake; the images of one task are distinct.
        tasks: By name, in the order of the work. If a task has kinds of questions, each draw asks for one of them.
        teacher: Asked only what its answer store lacks.
        settings: How many draws per image, and how they are decoded.
        seed: With image, task and draw number it decides each draw.
        progress: Called after every batch.

    Raises:
        WorkFailed: No reply for a task could be parsed; the message shows three.
    """
    if artifact.finished:
        return
    given = given_rows(artifact)
    own = [pair for pair in map(pair_of, given) if pair]
    annotators = [
        Annotator(
            task,
            [image for image in images if image.task == task.name],
            teacher,
            settings,
            seed,
            _questions(own, task),
            progress,
            lambda text: _tell(artifact, progress, text),
        )
        for task in tasks.values()
    ]
    work = [(each, each.draws) for each in annotators if each.images]  # without images the teacher is not even loaded
    teacher.announce(([draw.asked for _, draws in work for draw in draws], settings.decoding))
    replies = [reply for each, draws in work for reply in each.replies(draws)]
    artifact.stream(REPLIES, Reply).write(replies)
    # Without paths, so that what is made from pairs does not change when images are moved.
    artifact.stream(PAIRS, Pair).write(chain(_pairs(replies, teacher.name) if replies else (), own))
    _finish(artifact, replies, given)


def asked_images(images: Artifact) -> list[ImageRef]:
    """The images that the teacher writes pairs about: those of the pools, not those that only pairs name."""
    return [image for image in accepted_images(images) if not image.of_pairs]


def _tell(artifact: Artifact, progress: Progress, text: str) -> None:
    """Tells a sentence once, also where the stage is continued by another process, and keeps it for the report."""
    if artifact.note(text) and isinstance(progress, Says):
        progress.say(f"annotate: {text}")


def _questions(own: Sequence[Pair], task: Task) -> dict[str, list[ParsedPair]]:
    """What a task's own pairs ask and answer, by image."""
    asked: dict[str, list[ParsedPair]] = {}
    for pair in own:
        if pair.task == task.name:
            asked.setdefault(pair.image_id, []).append(ParsedPair(pair.question, pair.answer))
    return asked


def written_pairs(artifact: Artifact, images: Sequence[ImageRef]) -> list[Pair]:
    """The pairs, by task and image, with the paths of their images."""
    return list(with_images(artifact.stream(PAIRS, Pair), images))


def with_images(pairs: Iterable[Pair], images: Iterable[ImageRef]) -> Iterator[Pair]:
    """Pairs of a run's records with the paths of their images."""
    paths = {(image.image_id, image.task): image.path for image in images}
    for pair in pairs:
        yield pair.model_copy(update={"image": paths.get((pair.image_id, pair.task), pair.image)})


def pairs_in(run: Path, file: str = f"pairs/{PAIRS}") -> Iterator[Pair]:
    """The pairs in a file of a run folder, with the paths of their images.

    Raises:
        UserError: The file, or that of the images, is damaged.
    """
    accepted, pairs = run / "images" / ACCEPTED, run / file
    for path in (accepted, pairs):
        refuse_changed(path)
    images = (image_with_path(image, run) for image in Stream(accepted, ImageRef, read_only=True))
    yield from with_images(Stream(pairs, Pair, read_only=True), images)


def _pairs(replies: Sequence[Reply], teacher_name: str) -> Iterator[Pair]:
    for reply in replies:
        parsed = read_pair(reply.raw) if reply.pair_id else NoPair.EMPTY
        if reply.pair_id and isinstance(parsed, ParsedPair):
            yield Pair(
                pair_id=reply.pair_id,
                image_id=reply.image_id,
                image="",
                task=reply.task,
                question=parsed.question,
                answer=parsed.answer,
                teacher=teacher_name,
            )


def _finish(artifact: Artifact, replies: Sequence[Reply], rows: Sequence[GivenRow]) -> None:
    by_task: dict[str, Counter[str]] = {}
    by_kind: dict[str, dict[str, Counter[str]]] = {}
    for reply in replies:
        by_task.setdefault(reply.task, Counter())[reply.outcome] += 1
        if reply.kind:
            by_kind.setdefault(reply.task, {}).setdefault(reply.kind, Counter())[reply.outcome] += 1
    total = sum(by_task.values(), Counter[str]())
    counts = {"replies": total.total(), "pairs": total.pop(OK, 0) + sum(row.outcome == OK for row in rows), **total}
    if rows:
        counts |= counts_of_rows(rows)
    kinds = {"by_kind": by_kind} if by_kind else {}
    artifact.finish(counts, by_task={task: dict(outcomes) for task, outcomes in by_task.items()}, **kinds)
