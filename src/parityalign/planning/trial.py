"""A trial of a run on its sample: the teacher writes pairs, both models answer them, the student trains a few steps.

The stages' own code does it, in a folder that is gone afterwards. A plan for this machine reckons with the time that it
took and with what came of it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from PIL.Image import Image

from parityalign.config import Role, RunConfig
from parityalign.core import (
    Answer,
    Decoding,
    ImageRef,
    Pair,
    Request,
    RunFolder,
    Task,
    UserError,
    VerdictKind,
    WorkFailed,
)
from parityalign.data import image_id
from parityalign.engines import AnswerStore, Asked, CachedModel, model_replies
from parityalign.models import give_back_memory, held_meanwhile, load_model
from parityalign.planning.sampling import Sample
from parityalign.planning.sizes import Throughput
from parityalign.planning.works import Shares
from parityalign.stages import (
    NO_TEACHER_ANSWER,
    annotate_images,
    answer_tests,
    answers_to,
    as_asked,
    judge_answers,
    written_pairs,
)
from parityalign.training import Pace, measured_pace

T = TypeVar("T")
QUESTION = "What is written on the sign beside the door?"
"""A placeholder for questions that are not written yet."""
_EVERY = 2
"""The teacher answers every second pair, as it would about those that the student has wrong."""


class Trial(NamedTuple):
    """What a trial found."""

    paces: Mapping[Role, Throughput]
    """Of the models that were tried."""
    shares: Mapping[str, Shares]
    """By task, what comes of the draws; of tasks whose pictures were opened, and of none if one of the models was not
    tried, or no pair was written."""


def tried(
    config: RunConfig,
    tasks: Mapping[str, Task],
    samples: Mapping[str, Sample],
    roles: Collection[Role],
    clock: Callable[[], float],
) -> Trial:
    """Tries the models of these roles.

    On pictures of the run's own if any was opened; blank ones tell of time and memory alone.

    Args:
        config: The run, with nothing that is `auto`.
        tasks: By name.
        samples: Of each task.
        roles: Those of models in this process.
        clock: Gives seconds; everything is timed by it.

    Raises:
        UserError: A model cannot be loaded.
    """
    if not roles:
        return Trial({}, {})
    with TemporaryDirectory() as folder:
        return _Trial(config, tasks, samples, Path(folder), clock).of(roles)


@dataclass(frozen=True)
class _Trial:
    """The parts of a trial."""

    config: RunConfig
    tasks: Mapping[str, Task]
    samples: Mapping[str, Sample]
    folder: Path
    clock: Callable[[], float]

    def of(self, roles: Collection[Role]) -> Trial:
        images, paces = self._images(), dict[Role, Throughput]()
        pairs, written, of_teacher = self._made_up(images), False, dict[str, Answer]()
        if "teacher" in roles:
            with self._model("teacher") as model:
                (pairs, written, of_teacher, pace), memory = held_meanwhile(lambda: self._of_teacher(model, images))
            paces["teacher"] = pace._replace(memory=memory)
        if "student" in roles:
            with self._model("student") as model:
                (of_student, pace), memory = held_meanwhile(lambda: self._answers(model, pairs))
            paces["student"] = self._trained(pairs, pace._replace(memory=memory))
        found = written and self._opened and len(roles) > 1
        return Trial(paces, self._shares(images, pairs, of_student, of_teacher) if found else {})

    def _of_teacher(
        self, teacher: CachedModel, images: Sequence[ImageRef]
    ) -> tuple[list[Pair], bool, dict[str, Answer], Throughput]:
        """The pairs, whether it wrote them, and its answers to some of them."""
        written, seconds = self._timed(lambda: self._written(teacher, images))
        pairs = written or self._made_up(images)
        again = pairs if self.config.identify.ask_teacher == "all" else pairs[::_EVERY]
        said, pace = self._answers(teacher, again)
        annotate, rationale = seconds / self._most_draws(images), self._explained(teacher, again)
        return pairs, bool(written), said, pace._replace(annotate=annotate, rationale=rationale)

    @property
    def _per_image(self) -> int:
        return self.config.annotate.pairs_per_image

    def _most_draws(self, images: Sequence[ImageRef]) -> int:
        """As many as a plan counts: further ones too, though fewer of them may have been asked for."""
        draws = [count * self._per_image for count in Counter(image.task for image in images).values()]
        return sum(count + self.config.annotate.most_further(count) for count in draws)

    @property
    def _opened(self) -> list[str]:
        """The tasks of which pictures were opened."""
        return [name for name, found in self.samples.items() if found.opened]

    def _images(self) -> list[ImageRef]:
        """The sample's pictures as files, since models read files; blank ones only where there are no others."""
        saved = [
            _saved(picture, self.folder / f"{task}-{number}.png", task)
            for task in self._opened or self.samples
            for number, picture in enumerate(self.samples[task].pictures)
        ]
        return [*{(image.task, image.image_id): image for image in saved}.values()]

    def _made_up(self, images: Sequence[ImageRef]) -> list[Pair]:
        """Pairs that nobody wrote, one for each draw."""
        return [
            Pair(
                pair_id=f"{image.task} {image.image_id} {number}",
                image_id=image.image_id,
                image=image.path,
                task=image.task,
                question=f"{QUESTION} {number}",
                answer="nothing",
                teacher="",
            )
            for image in images
            for number in range(self._per_image)
        ]

    @contextmanager
    def _model(self, role: Role) -> Iterator[CachedModel]:
        """One of the models; its memory is given back, whatever happens."""
        spec, loading = getattr(self.config, role), getattr(self.config.loading, role)
        with closing(AnswerStore()) as store:
            load = partial(load_model, spec, loading)
            model = CachedModel(spec, load, store, thinking_tokens=loading.thinking_tokens)
            try:
                yield model
            finally:
                model.free()
                give_back_memory()

    def _written(self, teacher: CachedModel, images: Sequence[ImageRef]) -> list[Pair]:
        """The pairs that the teacher writes; none if it does not follow the prompt."""
        with RunFolder(self.folder / "run") as run:
            artifact = run.artifact("pairs", inputs={}, settings={})
            settings, seed = self.config.annotate, self.config.seed
            try:
                annotate_images(artifact, images, self.tasks, teacher, settings=settings, seed=seed, progress=_mute)
            except WorkFailed:
                return []
            return written_pairs(artifact, images)

    def _answers(self, model: CachedModel, pairs: Sequence[Pair]) -> tuple[dict[str, Answer], Throughput]:
        config = self.config
        asked = [as_asked(pair, self.tasks[pair.task]) for pair in pairs]
        self._read(model, asked[:1])  # the first call makes caches and picks kernels
        said, answering = self._timed(
            lambda: answers_to(model, pairs, self.tasks, settings=config.identify, on_progress=_ignored)
        )
        tests = {name: found.asked for name, found in self.samples.items()}
        of_tests, testing = self._timed(
            lambda: answer_tests(
                model, tests, self.tasks, settings=config.evaluate, seed=config.seed, on_progress=_ignored
            )
        )
        _, reading = self._timed(lambda: self._read(model, asked))
        each = answering / len(pairs)
        return said, Throughput(
            answer=each, test=testing / len(of_tests) if of_tests else each, read=reading / len(pairs), pairs=len(pairs)
        )

    def _explained(self, teacher: CachedModel, pairs: Sequence[Pair]) -> float:
        """Seconds that a rationale takes; 0: none are asked for."""
        if not self.config.wants_rationales:
            return 0.0
        requests = [
            Request(pair.image, self.tasks[pair.task].rationale_prompt.format(question=pair.question)) for pair in pairs
        ]
        decoding = Decoding(self.config.discrepancy.max_new_tokens + self.config.loading.teacher.thinking_tokens)
        return self._timed(lambda: model_replies(teacher.loaded(), requests, decoding))[1] / len(requests)

    def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        began = self.clock()
        made = work()
        return made, self.clock() - began

    def _read(self, model: CachedModel, asked: Sequence[Asked]) -> None:
        model_replies(model.loaded(), [Request(each.image, each.prompt) for each in asked], Decoding(1))

    def _trained(self, pairs: Sequence[Pair], pace: Throughput) -> Throughput:
        """With the pace of training, or with the reason why the student cannot be trained here."""
        try:
            training, memory = held_meanwhile(lambda: self._training(pairs))
        except (UserError, WorkFailed) as problem:
            return pace._replace(not_trained=str(problem).partition("\n")[0])
        return pace._replace(training=training._replace(memory=memory))

    def _training(self, pairs: Sequence[Pair]) -> Pace:
        level = self.config.level
        pictures = sum(self.samples[name].images for name in self._opened or self.samples)
        train, size = [*pairs], min(level.batch_size, len(pairs))
        if not level.questions_together:
            train, size = as_drawn(pairs, pictures, level.batch_size)
        return measured_pace(
            self.config,
            {name: task.answer_prompt for name, task in self.tasks.items()},
            train=train,
            batch_size=size,
            held_out=pairs,
            clock=self.clock,
        )

    def _shares(
        self,
        images: Sequence[ImageRef],
        pairs: Sequence[Pair],
        student: Mapping[str, Answer],
        teacher: Mapping[str, Answer],
    ) -> dict[str, Shares]:
        said = [{pair_id: answer.text for pair_id, answer in each.items()} for each in (student, teacher)]
        return {
            name: self._shares_of(
                task, [pair for pair in pairs if pair.task == name], sum(image.task == name for image in images), *said
            )
            for name, task in self.tasks.items()
            if name in self._opened
        }

    def _shares_of(
        self, task: Task, pairs: Sequence[Pair], images: int, student: Mapping[str, str], teacher: Mapping[str, str]
    ) -> Shares:
        settings = self.config.identify.model_copy(update={"ask_teacher": "failures"})
        alone = judge_answers(pairs, student, {}, task=task, settings=settings)
        failed = [pair for pair, each in zip(pairs, alone, strict=True) if each.reason == NO_TEACHER_ANSWER]
        asked = [pair for pair in failed if pair.pair_id in teacher]
        verdicts = judge_answers(asked, student, teacher, task=task, settings=settings)
        gaps = sum(each.verdict == VerdictKind.TEACHER_ONLY for each in verdicts)
        wrong = len(failed) / max(1, len(pairs))
        return Shares(
            pairs=len(pairs) / max(1, images * self._per_image),
            failed=wrong,
            gaps=wrong * (gaps / len(asked) if asked else 1.0),
        )


def as_drawn(pairs: Sequence[Pair], pictures: int, batch_size: int) -> tuple[list[Pair], int]:
    """Pairs step by step, with as many about one picture in a step as chance gives a run; these share a row.

    Args:
        pairs: Of the sample.
        pictures: Of the pools, with as many pairs each as those of the sample.
        batch_size: Pairs of a run's step.

    Returns:
        The pairs of some steps, and how many a step has: fewer than a run's if the sample has too few pictures.
    """
    of = {pair.image: [each for each in pairs if each.image == pair.image] for pair in pairs}
    pictures, each = max(pictures, len(of)), len(pairs) / len(of)
    batch_size = min(batch_size, int(pictures * each))
    expected = max(1.0, pictures * (1 - (1 - batch_size / (pictures * each)) ** each))
    shown = max(1, min(round(expected), len(of)))
    size = min(len(pairs), batch_size, max(shown, round(shown * batch_size / expected)))
    steps, order, following = list[Pair](), cycle(of), {image: cycle(found) for image, found in of.items()}
    while len(steps) < len(pairs):
        about = [*islice(order, shown)]
        turns = (image for turn in range(len(pairs)) for image in about if turn < len(of[image]))
        steps += [next(following[image]) for image in islice(chain(turns, order), size)]
    return steps, size


def _saved(picture: Image, path: Path, task: str) -> ImageRef:
    picture.save(path)
    return ImageRef(image_id=image_id(path.read_bytes()), path=str(path), task=task)


def _mute(_step: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def _ignored(_done: int, _total: int) -> None:
    """Likewise."""
