"""Annotate (the paper's Pseudo Annotator): the teacher writes questions and answers for unlabelled images.

It uses no labels. Every raw reply is kept, with its outcome.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from parityalign.config import AnnotateSettings
from parityalign.core import (
    Artifact,
    Decoding,
    ImageRef,
    Model,
    Pair,
    Progress,
    Reply,
    Request,
    Stream,
    Task,
    WorkFailed,
    content_id,
    resume_in_batches,
    write_all,
)
from parityalign.engines import LoadModel, announce, model_replies, next_batch_after
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.intake import accepted_images
from parityalign.stages.parsing import NoPair, ParsedPair, read_pair

REPLIES = "replies.jsonl"
PAIRS = "pairs.jsonl"

OK = "ok"
DUPLICATE = "duplicate"
"""An earlier draw on the image gave the same question and answer."""
REPEAT_QUESTION = "repeat_question"
"""An earlier draw on the image gave the same question with another answer; the first one is kept."""

_PATIENCE_BATCHES = 3
"""Batches without any pair after which the stage stops, since the teacher does not follow the prompt."""
_pair_in = lru_cache(4096)(read_pair)  # the replies on one image are compared with each other
_SHOWN_REPLIES = 3
_SHOWN_CHARACTERS = 200


def _work(run: StageRun, artifact: Artifact) -> None:
    images, config = accepted_images(run.artifact("images")), run.config
    settings, seed, progress = config.annotate, config.seed, run.progress
    annotate_images(artifact, images, run.tasks, run.load_teacher, settings=settings, seed=seed, progress=progress)


STAGE = Stage(
    "annotate",
    artifact="pairs",
    of=("images", "teacher model", "annotate prompt"),
    settings=("annotate", "seed"),
    work=_work,
    help="Have the teacher write questions and answers for the images.",
)


def annotate_images(
    artifact: Artifact,
    images: Sequence[ImageRef],
    tasks: Mapping[str, Task],
    load_teacher: LoadModel,
    *,
    settings: AnnotateSettings,
    seed: int,
    progress: Progress,
) -> None:
    """Asks the teacher for pairs on every image, each with the prompt of the task it came in with.

    Args:
        artifact: Gets `replies.jsonl` and `pairs.jsonl`.
        images: Accepted by intake; the images of one task are distinct.
        tasks: By name, in the order of the work. If a task has kinds of questions, each draw asks for one of them.
        load_teacher: Not called if the artifact is finished.
        settings: How many draws per image, and how they are decoded.
        seed: With image, task and draw number it decides each draw.
        progress: Called after every batch.

    Raises:
        WorkFailed: No reply for a task could be parsed; the message shows three.
    """
    if artifact.finished:
        return
    teacher = load_teacher()
    stream = artifact.stream(REPLIES, Reply)
    for task in tasks.values():
        _Annotator(task, teacher, settings, seed).run(stream, images, progress)
    write_all(artifact.stream(PAIRS, Pair), list(_pairs(stream, images, teacher.name)), lambda pair: pair.pair_id)
    _finish(artifact, stream)


def written_pairs(artifact: Artifact) -> list[Pair]:
    """The pairs, by task and image."""
    return list(artifact.stream(PAIRS, Pair))


class _Draw(NamedTuple):
    """One request for a pair."""

    image: ImageRef
    number: int
    """Number of the draw on the image, from 0."""
    reply_id: str


@dataclass(frozen=True)
class _Annotator:
    """The work on one task."""

    task: Task
    teacher: Model
    settings: AnnotateSettings
    seed: int

    def run(self, stream: Stream[Reply], images: Sequence[ImageRef], progress: Progress) -> None:
        """Writes one reply for every draw that has none yet."""
        name, settings = self.task.name, self.settings
        draws = [
            _Draw(image, number, self._reply_id(image, number))
            for image in images
            if image.task == name
            for number in range(settings.pairs_per_image)
        ]
        written = {reply.reply_id: reply for reply in stream if reply.task == name}
        after = next_batch_after(draws, settings.batch_size, lambda draw: draw.reply_id)

        def work(batch: Sequence[_Draw]) -> list[Reply]:
            if len(written) >= _PATIENCE_BATCHES * settings.batch_size:
                self._require_a_pair(written)
            announce(self.teacher, [self._request(draw) for draw in after(batch)])
            return self._draw(batch, written)

        resume_in_batches(
            stream,
            draws,
            item_id=lambda draw: draw.reply_id,
            record_id=lambda reply: reply.reply_id,
            batch_size=settings.batch_size,
            work=work,
            on_progress=lambda done, total: progress(f"annotate {name}", done, total),
        )
        self._require_a_pair(written)

    def _draw(self, batch: Sequence[_Draw], written: dict[str, Reply]) -> list[Reply]:
        """Asks for one batch; adds the replies to `written`, where later draws look for duplicates."""
        requests = [self._request(draw) for draw in batch]
        decoding = Decoding(self.settings.max_new_tokens, self.settings.temperature)
        for draw, raw in zip(batch, model_replies(self.teacher, requests, decoding), strict=True):
            written[draw.reply_id] = self._read(draw, raw, written)
        return [written[draw.reply_id] for draw in batch]

    def _request(self, draw: _Draw) -> Request:
        seed = self._draw_seed(draw)
        return Request(draw.image.path, self.task.annotate_prompt_for(self.task.kind_of(seed)), seed)

    def _read(self, draw: _Draw, raw: str, written: Mapping[str, Reply]) -> Reply:
        image, task = draw.image, self.task.name
        parsed = _pair_in(raw, self.teacher.special_tokens)
        earlier = [written[self._reply_id(image, number)] for number in range(draw.number)]
        known = [_pair_in(reply.raw, self.teacher.special_tokens) for reply in earlier if reply.outcome == OK]
        outcome = _outcome(parsed, [pair for pair in known if isinstance(pair, ParsedPair)])
        pair_id = None
        if isinstance(parsed, ParsedPair) and outcome == OK:
            pair_id = content_id(image.image_id, task, *parsed, self.teacher.name)
        return Reply(
            reply_id=draw.reply_id,
            image_id=image.image_id,
            task=task,
            raw=raw,
            outcome=outcome,
            pair_id=pair_id,
            kind=self.task.kind_of(self._draw_seed(draw)),
        )

    def _reply_id(self, image: ImageRef, number: int) -> str:
        return content_id(image.image_id, self.task.name, self.teacher.name, str(number))

    def _draw_seed(self, draw: _Draw) -> int:
        return int(content_id(draw.image.image_id, self.task.name, str(draw.number), str(self.seed))[:12], 16)

    def _require_a_pair(self, written: Mapping[str, Reply]) -> None:
        if not written or any(reply.outcome == OK for reply in written.values()):
            return
        counts = Counter(reply.outcome for reply in written.values())
        shown = [repr(reply.raw[:_SHOWN_CHARACTERS]) for reply in islice(written.values(), _SHOWN_REPLIES)]
        raise WorkFailed(
            f"none of {len(written)} replies of {self.teacher.name} for the task {self.task.name} "
            f"holds a question and an answer ({_in_words(counts)}). The first ones:\n  "
            + "\n  ".join(shown)
            + "\nUse a teacher that follows instructions; if replies are cut off, raise annotate.max_new_tokens."
        )


def _outcome(parsed: ParsedPair | NoPair, known: Sequence[ParsedPair]) -> str:
    """The outcome of a reply, given the earlier pairs of the same image."""
    if not isinstance(parsed, ParsedPair):
        return parsed.value
    same_question = [pair for pair in known if pair.question.casefold() == parsed.question.casefold()]
    if not same_question:
        return OK
    same = any(pair.answer.casefold() == parsed.answer.casefold() for pair in same_question)
    return DUPLICATE if same else REPEAT_QUESTION


def _pairs(stream: Stream[Reply], images: Sequence[ImageRef], teacher_name: str) -> Iterator[Pair]:
    paths = {(image.image_id, image.task): image.path for image in images}
    for reply in stream:
        parsed = read_pair(reply.raw)
        if reply.pair_id and isinstance(parsed, ParsedPair):
            yield Pair(
                pair_id=reply.pair_id,
                image_id=reply.image_id,
                image=paths[reply.image_id, reply.task],
                task=reply.task,
                question=parsed.question,
                answer=parsed.answer,
                teacher=teacher_name,
            )


def _finish(artifact: Artifact, stream: Stream[Reply]) -> None:
    by_task: dict[str, Counter[str]] = {}
    by_kind: dict[str, dict[str, Counter[str]]] = {}
    for reply in stream:
        by_task.setdefault(reply.task, Counter())[reply.outcome] += 1
        if reply.kind:
            by_kind.setdefault(reply.task, {}).setdefault(reply.kind, Counter())[reply.outcome] += 1
    total = sum(by_task.values(), Counter[str]())
    counts = {"replies": total.total(), "pairs": total.pop(OK, 0), **total}
    kinds = {"by_kind": by_kind} if by_kind else {}
    artifact.finish(counts, by_task={task: dict(outcomes) for task, outcomes in by_task.items()}, **kinds)


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
