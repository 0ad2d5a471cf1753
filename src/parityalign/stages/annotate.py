"""Annotate (the paper's Pseudo Annotator): the teacher writes questions and answers for unlabelled images.

It uses no labels. Every raw reply is kept, with its outcome.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from math import ceil
from pathlib import Path

from parityalign.config import AnnotateSettings
from parityalign.core import (
    Answer,
    Artifact,
    ImageRef,
    Pair,
    Progress,
    Reply,
    Stream,
    Task,
    WorkFailed,
    content_id,
    refuse_changed,
)
from parityalign.engines import DECLINED, Asked, CachedModel
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.intake import ACCEPTED, accepted_images, image_with_path
from parityalign.stages.own_pairs import OK, GivenRow, given_rows, outcome_of, pair_of, take_own_pairs
from parityalign.stages.parsing import NoPair, ParsedPair, read_pair

REPLIES = "replies.jsonl"
PAIRS = "pairs.jsonl"

_TOLD_BY = 8
"""Replies, in whole batches, that tell of a teacher that does nothing but think."""
_PATIENCE_BATCHES = 3
"""Batches without any pair after which the stage stops, since the teacher does not follow the prompt."""
_SHOWN_REPLIES = 3
_SHOWN_CHARACTERS = 200


def _work(run: StageRun, artifact: Artifact) -> None:
    images, config = run.artifact("images"), run.config
    take_own_pairs(artifact, images, config, run.tasks)
    annotate_images(
        artifact,
        asked_images(images),
        run.tasks,
        run.teacher,
        settings=config.annotate,
        seed=config.seed,
        progress=run.progress,
    )


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
    replies = [
        reply
        for task in tasks.values()
        for reply in _Annotator(task, teacher, settings, seed, _questions(own, task)).replies(images, progress)
    ]
    artifact.stream(REPLIES, Reply).write(replies)
    # Without paths, so that what is made from pairs does not change when images are moved.
    artifact.stream(PAIRS, Pair).write(chain(_pairs(replies, teacher.name) if replies else (), own))
    _finish(artifact, replies, given)


def asked_images(images: Artifact) -> list[ImageRef]:
    """The images that the teacher writes pairs about: those of the pools, not those that only pairs name."""
    return [image for image in accepted_images(images) if not image.of_pairs]


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


def draws_of(
    images: Sequence[ImageRef], task: Task, teacher: str, settings: AnnotateSettings, seed: int
) -> list[Asked]:
    """The questions to the teacher about the images of a task: one a draw.

    Args:
        images: Of any tasks.
        task: Whose images are asked about.
        teacher: The teacher's name.
        settings: How many draws per image.
        seed: With image, task and draw number it decides each draw.
    """
    asked = []
    for image in (image for image in images if image.task == task.name):
        for number in range(settings.pairs_per_image):
            drawn = int(content_id(image.image_id, task.name, str(number), str(seed))[:12], 16)
            prompt = task.annotate_prompt_for(task.kind_of(drawn))
            reply_id = content_id(image.image_id, task.name, teacher, str(number))
            asked.append(Asked(reply_id, image.path, prompt, "", image.image_id, drawn))
    return asked


@dataclass(frozen=True)
class _Annotator:
    """The work on one task."""

    task: Task
    teacher: CachedModel
    settings: AnnotateSettings
    seed: int
    own: Mapping[str, Sequence[ParsedPair]]
    """Pairs of one's own, by image."""

    def replies(self, images: Sequence[ImageRef], progress: Progress) -> list[Reply]:
        """The teacher's reply to every draw, read; without images the teacher is not even loaded."""
        images = [image for image in images if image.task == self.task.name]
        if not images:
            return []
        draws = draws_of(images, self.task, self.teacher.name, self.settings, self.seed)
        said: dict[str, Answer] = {}
        batch = self.settings.batch_size
        few = batch * ceil(_TOLD_BY / batch)
        first = max(few, _PATIENCE_BATCHES * batch)
        require = self._require_speech
        for some in (draws[:few], draws[few:first], draws[first:]):
            said |= self._ask(some, len(said), len(draws), progress)
            require(said)
            require = self._require_a_pair
        replies: list[Reply] = []
        for of_image in _by_image(draws):
            replies += self._read(of_image, said)
        return replies

    def _ask(self, draws: Sequence[Asked], before: int, total: int, progress: Progress) -> dict[str, Answer]:
        return self.teacher.answer(
            draws,
            decoding=self.settings.decoding,
            batch_size=self.settings.batch_size,
            on_progress=lambda done, _: progress(f"annotate {self.task.name}", before + done, total),
        )

    def _read(self, draws: Sequence[Asked], said: Mapping[str, Answer]) -> list[Reply]:
        """The replies on one image; a pair that repeats an earlier one of them, or one's own, is none."""
        replies: list[Reply] = []
        known = [*self.own.get(draws[0].image_id, ())]
        for draw in draws:
            answer = said[draw.item_id]
            parsed = self._parsed(answer)
            outcome = outcome_of(parsed, known) if isinstance(parsed, ParsedPair) else parsed
            pair_id = None
            if isinstance(parsed, ParsedPair) and outcome == OK:
                known.append(parsed)
                pair_id = content_id(draw.image_id, self.task.name, *parsed, self.teacher.name)
            replies.append(
                Reply(
                    reply_id=draw.item_id,
                    image_id=draw.image_id,
                    task=self.task.name,
                    raw=answer.text or answer.not_asked or "",
                    outcome=outcome,
                    pair_id=pair_id,
                    kind=self.task.kind_of(draw.seed),
                )
            )
        return replies

    def _parsed(self, answer: Answer) -> ParsedPair | str:
        """The pair in a reply, or why there is none."""
        if answer.not_asked:
            return DECLINED
        if answer.cut_off and not answer.text:
            return NoPair.UNFINISHED_THOUGHT  # servers may keep thoughts to themselves
        parsed = read_pair(answer.text, self.teacher.special_tokens)
        return parsed if isinstance(parsed, ParsedPair) else parsed.value

    def _require_speech(self, said: Mapping[str, Answer]) -> None:
        outcomes = [self._parsed(answer) for answer in said.values() if not answer.not_asked]
        if outcomes and all(outcome == NoPair.UNFINISHED_THOUGHT for outcome in outcomes):
            raise WorkFailed(
                f"{self.teacher.name} was still thinking at the end of each of its first {len(outcomes)} replies.\n"
                "Switch its thoughts off: loading.teacher.chat_template_kwargs: {enable_thinking: false}, for a served "
                "model server.extra_body: {chat_template_kwargs: {enable_thinking: false}}.\n"
                "Or give it room, in tokens: loading.teacher.thinking_tokens: 2048."
            )

    def _require_a_pair(self, said: Mapping[str, Answer]) -> None:
        outcomes = [self._parsed(answer) for answer in said.values()]
        if not said or any(isinstance(outcome, ParsedPair) for outcome in outcomes):
            return
        counts = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
        texts = (answer.not_asked or answer.text for answer in said.values())
        shown = [repr(text[:_SHOWN_CHARACTERS]) for text in islice(texts, _SHOWN_REPLIES)]
        raise WorkFailed(
            f"none of {len(said)} replies of {self.teacher.name} for the task {self.task.name} "
            f"holds a question and an answer ({_in_words(counts)}). The first ones:\n  "
            + "\n  ".join(shown)
            + "\nUse a teacher that follows instructions; if replies are cut off, raise annotate.max_new_tokens."
        )


def _by_image(draws: Sequence[Asked]) -> Iterator[list[Asked]]:
    for _, of_image in groupby(draws, lambda draw: draw.image_id):
        yield list(of_image)


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
    given = Counter(row.outcome for row in rows)
    used = given.pop(OK, 0)
    counts = {"replies": total.total(), "pairs": total.pop(OK, 0) + used, **total}
    if rows:
        counts |= {"given": used, **{f"given: {outcome}": count for outcome, count in sorted(given.items())}}
    kinds = {"by_kind": by_kind} if by_kind else {}
    artifact.finish(counts, by_task={task: dict(outcomes) for task, outcomes in by_task.items()}, **kinds)


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
