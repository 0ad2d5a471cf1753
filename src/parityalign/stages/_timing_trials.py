"""Interleaved timing trials: two students answer the same questions, part by part.

Each part goes to one student and then to the other, and the order alternates, so that other load on the machine
affects both alike. Fast students answer all parts several times, since short times are noisy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from parityalign.core import Decoding, Local, Model, Record
from parityalign.engines import Asked, LoadModel, askable, model_replies, request_of

BEFORE, AFTER = "before", "after"
MOST_PARTS = 16
"""Parts of the questions."""
MOST_PASSES = 8
"""Most passes through all parts."""
ENOUGH_SECONDS = 10.0
"""Seconds of both students' answers after which no further pass begins."""
VISITS = 2
"""How often each student is loaded, if both do not fit into memory."""
_FIRST_TOKEN = Decoding(max_new_tokens=1)

Clock = Callable[[], float]
"""Seconds from an arbitrary start."""


class Trial(Record):
    """The times of one student for one part of the questions."""

    who: str
    part: int
    again: int
    """Earlier passes through this part."""
    questions: int
    seconds: float
    """Seconds for all questions of the part."""
    first_token_seconds: float
    """Seconds until the first token of the first question alone."""
    words: int
    """Words in all answers."""


class TimedStudent(Record):
    """Size and memory of one student."""

    who: str
    parameters: int
    peak_bytes: int | None
    together: bool
    """Whether the other student was in memory too."""


class InterleavedTiming:
    """The student before and after, both in memory if they fit, else one at a time.

    Attributes:
        are_local: Whether they run in this process.
        parts: The questions of each trial.
        measured: Size and memory of each student loaded so far.
    """

    def __init__(
        self, loads: Mapping[str, LoadModel], questions: Sequence[Asked], *, decoding: Decoding, clock: Clock
    ) -> None:
        """Loads the student before.

        Args:
            loads: Load `BEFORE` and `AFTER`.
            questions: For both; those with special tokens of a model are left out.
            decoding: How long answers may be.
            clock: The timer.
        """
        self._loads, self._decoding, self._clock = loads, decoding, clock
        first = loads[BEFORE]()
        self._models: dict[str, Model] = {BEFORE: first}
        self._warm: set[str] = set()
        self.are_local = isinstance(first, Local)
        self._together = isinstance(first, Local) and first.fits_twice()
        self.measured: dict[str, TimedStudent] = {}
        asked = askable(questions, first.special_tokens)
        count = min(MOST_PARTS, len(asked))
        self.parts = [asked[number::count] for number in range(count)]  # each has questions of every task

    def trials(self) -> Iterator[Trial]:
        """The trials of both, in the order in which they are run."""
        seconds = 0.0
        for again in range(MOST_PASSES if self._together else 1):
            for trial in self._pass(again):
                seconds += trial.seconds
                yield trial
            if seconds >= ENOUGH_SECONDS:
                return

    def _pass(self, again: int) -> Iterator[Trial]:
        visits = len(self.parts) if self._together else min(VISITS, len(self.parts))
        for visit in range(visits):
            begin, end = (len(self.parts) * edge // visits for edge in (visit, visit + 1))
            for who in (BEFORE, AFTER) if (visit + again) % 2 == 0 else (AFTER, BEFORE):
                for part in range(begin, end):
                    yield self._trial(who, part, again)

    def _trial(self, who: str, number: int, again: int) -> Trial:
        model, part = self._ready(who), self.parts[number]
        first, _ = self._timed(partial(model.generate, [request_of(part[0])], _FIRST_TOKEN))
        seconds, texts = self._timed(partial(self._answers, model, part))
        return Trial(
            who=who,
            part=number,
            again=again,
            questions=len(part),
            seconds=seconds,
            first_token_seconds=first,
            words=sum(len(text.split()) for text in texts),
        )

    def _timed(self, work: Callable[[], list[str]]) -> tuple[float, list[str]]:
        began = self._clock()
        texts = work()
        return self._clock() - began, texts

    def _answers(self, model: Model, part: Sequence[Asked]) -> list[str]:
        return model_replies(model, [request_of(question) for question in part], self._decoding)

    def _ready(self, who: str) -> Model:
        """The student, loaded and warmed up: the first calls fill caches and select kernels."""
        if who not in self._models:
            if not self._together:
                self._models.clear()
                self._warm.clear()
            self._models[who] = self._loads[who]()
        model = self._models[who]
        if who not in self._warm:
            self._warm_up(who, model)
        return model

    def _warm_up(self, who: str, model: Model) -> None:
        answers = partial(self._answers, model, self.parts[0])
        answers()
        model.generate([request_of(self.parts[0][0])], _FIRST_TOKEN)
        self._warm.add(who)
        if isinstance(model, Local) and who not in self.measured:
            peak = model.peak_bytes(answers)
            self.measured[who] = TimedStudent(
                who=who, parameters=model.parameters(), peak_bytes=peak, together=self._together
            )
