"""The work of annotate on one task: the teacher is asked draw by draw, and what it said is read."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil

from parityalign.config import AnnotateSettings
from parityalign.core import Answer, ImageRef, Progress, Reply, Task, WorkFailed, content_id
from parityalign.engines import DECLINED, CachedModel
from parityalign.stages.drawing import Draw, by_image, draws_of
from parityalign.stages.own_pairs import OK, outcome_of
from parityalign.stages.parsing import NoPair, ParsedPair, read_pair
from parityalign.stages.shortage import Read, Shortage, barren_kinds, within_quotas

_TOLD_BY = 8
"""Replies, in whole batches, that tell of a teacher that does nothing but think."""
_PATIENCE_BATCHES = 3
"""Batches without any pair after which the stage stops, since the teacher does not follow the prompt."""
_EARLY_IMAGES = 100
"""Images of a task after which it is told which kinds of questions the teacher does not write."""
_SHOWN_REPLIES = 3
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Annotator:
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
    _read_before: dict[str, ParsedPair | str] = field(default_factory=dict, init=False)
    """What replies hold, by their text: all are read again at each point where something can be told."""

    @property
    def draws(self) -> list[Draw]:
        """The ordinary draws."""
        return draws_of(self.images, self.task, self.teacher.name, self.settings, self.seed)

    def replies(self, draws: Sequence[Draw]) -> list[Reply]:
        """The teacher's reply to every draw, and to further ones for what they leave short, read."""
        if not draws:
            return []
        said, told = self._ask_ordinary(draws)
        read = self._read(draws, said)
        told |= self._tell_barren(read, but=told)
        left = self.settings.most_further(len(draws))
        while left and (more := self._shortage(read).further(left)):
            left -= len(more)
            said |= self._ask(more, len(said), len(said) + len(more))
            fewer, read = read, self._read([*(each.draw for each in read), *more], said)
            told |= self._tell_barren(read, but=told)
            if _pairs_among(read) == _pairs_among(fewer):
                break
        return [self._reply(each) for each in read]

    def _ask_ordinary(self, draws: Sequence[Draw]) -> tuple[dict[str, Answer], set[str]]:
        """Asks in whole batches up to points where something can be told; returns the kinds that were told of too."""
        batch = self.settings.batch_size
        few = batch * ceil(_TOLD_BY / batch)
        some = max(few, _PATIENCE_BATCHES * batch)
        early = batch * ceil(_EARLY_IMAGES * self.settings.pairs_per_image / batch)
        told: set[str] = set()

        def tell_barren(said: Mapping[str, Answer]) -> None:
            told.update(self._tell_barren(self._read(draws[:early], said)))

        stops: list[tuple[int, Callable[[Mapping[str, Answer]], None]]] = [
            (few, self._require_speech),
            (some, self._require_a_pair),
            (max(some, len(draws)), self._require_a_pair),
        ]
        if self.task.kinds and early < len(draws):
            stops.append((early, tell_barren))
        said: dict[str, Answer] = {}
        for stop, check in sorted(stops, key=lambda stop: stop[0]):
            said |= self._ask(draws[len(said) : stop], len(said), len(draws))
            check(said)
        return said, told

    def _tell_barren(self, read: Sequence[Read], but: Collection[str] = ()) -> set[str]:
        """Tells which kinds of questions the teacher does not write; returns them."""
        found = [each for each in barren_kinds(read) if each.kind not in but]
        images = len({each.draw.asked.image_id for each in read})
        for kind, outcomes, example in found:
            self.tell(
                f"{self.task.name}: of {outcomes.total():,} questions of the kind {kind!r} about {images:,} "
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
            parsed = self._parsed(answer)
            outcome = outcome_of(parsed, known) if isinstance(parsed, ParsedPair) else parsed
            if isinstance(parsed, ParsedPair) and outcome == OK:
                known.append(parsed)
                yield Read(draw, answer, outcome, parsed)
            else:
                yield Read(draw, answer, outcome)

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
            logprob=read.answer.logprob,
        )

    def _parsed(self, answer: Answer) -> ParsedPair | str:
        """The pair in a reply, or why there is none."""
        if answer.not_asked:
            return DECLINED
        if answer.cut_off and not answer.text:
            return NoPair.UNFINISHED_THOUGHT  # servers may keep thoughts to themselves
        if answer.text not in self._read_before:
            parsed = read_pair(answer.text, self.teacher.special_tokens)
            self._read_before[answer.text] = parsed if isinstance(parsed, ParsedPair) else parsed.value
        return self._read_before[answer.text]

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


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
