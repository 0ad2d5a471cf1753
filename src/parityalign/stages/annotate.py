"""Annotate (the paper's Pseudo Annotator): the teacher writes questions and answers for unlabelled images.

It uses no labels. Every raw reply is kept, with its outcome.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
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
    Says,
    Stream,
    Task,
    WorkFailed,
    content_id,
    refuse_changed,
)
from parityalign.engines import DECLINED, CachedModel
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.drawing import Draw, by_image, draws_of
from parityalign.stages.intake import ACCEPTED, accepted_images, image_with_path
from parityalign.stages.own_pairs import OK, GivenRow, given_rows, outcome_of, pair_of, take_own_pairs
from parityalign.stages.parsing import NoPair, ParsedPair, read_pair
from parityalign.stages.shortage import Read, Shortage, barren_kinds, within_quotas

REPLIES = "replies.jsonl"
PAIRS = "pairs.jsonl"

_TOLD_BY = 8
"""Replies, in whole batches, that tell of a teacher that does nothing but think."""
_PATIENCE_BATCHES = 3
"""Batches without any pair after which the stage stops, since the teacher does not follow the prompt."""
_EARLY_IMAGES = 100
"""Images of a task after which it is told which kinds of questions the teacher does not write."""
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
    annotators = [
        _Annotator(
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
    teacher.announce([draw.asked for _, draws in work for draw in draws], decoding=settings.decoding)
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


@dataclass(frozen=True)
class _Annotator:
    """The work on one task."""

    task: Task
    images: Sequence[ImageRef]
    """Its own."""
    teacher: CachedModel
    settings: AnnotateSettings
    seed: int
    own: Mapping[str, Sequence[ParsedPair]]
    """Pairs of one's own, by image."""
    progress: Progress
    tell: Callable[[str], None]
    """Tells a sentence, now and in the manifest."""

    @property
    def draws(self) -> list[Draw]:
        """The ordinary draws."""
        return draws_of(self.images, self.task, self.teacher.name, self.settings.pairs_per_image, self.seed)

    def replies(self, draws: Sequence[Draw]) -> list[Reply]:
        """The teacher's reply to every draw, and to further ones for what they leave short, read."""
        if not draws:
            return []
        said, told = self._ask_ordinary(draws)
        read = self._read(draws, said)
        self._tell_barren(read, but=told)
        left = self.settings.most_further(len(draws))
        while left and (more := self._shortage(read).further(left)):
            left -= len(more)
            said |= self._ask(more, len(said), len(said) + len(more))
            fewer, read = read, self._read([*(each.draw for each in read), *more], said)
            if _pairs_among(read) == _pairs_among(fewer):
                break
        return [self._reply(each) for each in read]

    def _ask_ordinary(self, draws: Sequence[Draw]) -> tuple[dict[str, Answer], set[str]]:
        """Asks in parts, after which it is told what is not worth going on with; returns the kinds told of."""
        said: dict[str, Answer] = {}
        batch = self.settings.batch_size
        few = batch * ceil(_TOLD_BY / batch)
        first = max(few, _PATIENCE_BATCHES * batch)
        require = self._require_speech
        for some in (draws[:few], draws[few:first]):
            said |= self._ask(some, len(said), len(draws))
            require(said)
            require = self._require_a_pair
        told: set[str] = set()
        early = max(first, batch * ceil(_EARLY_IMAGES * self.settings.pairs_per_image / batch))
        if self.task.kinds and early < len(draws):
            said |= self._ask(draws[first:early], len(said), len(draws))
            told = self._tell_barren(self._read(draws[:early], said))
            first = early
        said |= self._ask(draws[first:], len(said), len(draws))
        self._require_a_pair(said)
        return said, told

    def _tell_barren(self, read: Sequence[Read], but: Collection[str] = ()) -> set[str]:
        """Tells which kinds of questions the teacher does not write; returns them."""
        found = [each for each in barren_kinds(read) if each.kind not in but]
        images = len({each.draw.asked.image_id for each in read})
        for kind, outcomes, example in found:
            self.tell(
                f"{self.task.name}: of {outcomes.total():,} questions of the kind {kind!r} about the first {images:,} "
                f"images none became a pair ({_in_words(outcomes)}), such as {example[:_SHOWN_CHARACTERS]!r}. "
                f"If these images have nothing of the kind, list the others as tasks.{self.task.name}.kinds."
            )
        return {each.kind for each in found}

    def _shortage(self, read: Sequence[Read]) -> Shortage:
        return Shortage(self.task, self.images, self.teacher.name, self.settings, self.seed, read)

    def _ask(self, draws: Sequence[Draw], before: int, total: int) -> dict[str, Answer]:
        return self.teacher.answer(
            [draw.asked for draw in draws],
            decoding=self.settings.decoding,
            batch_size=self.settings.batch_size,
            on_progress=lambda done, _: self.progress(f"annotate {self.task.name}", before + done, total),
        )

    def _read(self, draws: Sequence[Draw], said: Mapping[str, Answer]) -> list[Read]:
        """What became of the draws, image by image."""
        read = [each for of_image in by_image(draws) for each in self._read_image(of_image, said)]
        return within_quotas(read, self.settings, self.seed)

    def _read_image(self, draws: Sequence[Draw], said: Mapping[str, Answer]) -> Iterator[Read]:
        """The replies on one image; a pair that repeats an earlier one of them, or one's own, is none."""
        known = [*self.own.get(draws[0].asked.image_id, ())]
        for draw in draws:
            answer = said[draw.asked.item_id]
            text, parsed = answer.text or answer.not_asked or "", self._parsed(answer)
            outcome = outcome_of(parsed, known) if isinstance(parsed, ParsedPair) else parsed
            if isinstance(parsed, ParsedPair) and outcome == OK:
                known.append(parsed)
                yield Read(draw, text, outcome, parsed)
            else:
                yield Read(draw, text, outcome)

    def _reply(self, read: Read) -> Reply:
        asked, pair_id = read.draw.asked, None
        if read.pair and read.outcome == OK:
            pair_id = content_id(asked.image_id, self.task.name, *read.pair, self.teacher.name)
        return Reply(
            reply_id=asked.item_id,
            image_id=asked.image_id,
            task=self.task.name,
            raw=read.text,
            outcome=read.outcome,
            pair_id=pair_id,
            kind=read.draw.kind,
        )

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


def _pairs_among(read: Iterable[Read]) -> int:
    return sum(each.outcome == OK for each in read)


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
