"""The leveller of a run."""

from collections.abc import Callable, Sequence
from pathlib import Path

from parityalign import training
from parityalign.config import LevelSettings, backend_of, level_in_words, split_model
from parityalign.core import Details, Leveller, LevelResult, Measures, Pair, Progress, Says, UserError
from parityalign.pipeline.objective import objective_of
from parityalign.stages import StageRun


def leveller(run: StageRun, settings: LevelSettings, seed: int, step: str = "level") -> Leveller:
    """The leveller of a student; torch is imported only when it is called.

    Args:
        run: The run.
        settings: How to train.
        seed: Of the order of the pairs.
        step: The name of its progress.
    """

    def level(pairs: Sequence[Pair], held_out: Sequence[Pair], out: Path) -> LevelResult:
        kind, location = split_model(run.config.student)
        if not backend_of(run.config.student).trainable:
            raise UserError(
                f"the student {run.config.student} cannot be trained: the backend {kind!r} makes models that only "
                "answer.\nTake a Hugging Face folder or a name on the hub (hf:...), or an embedded student."
            )
        told = _Renamed(run.progress, step)
        told.say(level_in_words(settings))
        make: Callable[..., Leveller] = training.make_leveller
        return make(
            location,
            {task.name: task.answer_prompt for task in run.tasks.values()},
            settings=settings,
            objective=objective_of(run, settings, [*pairs, *held_out]),
            seed=seed,
            progress=told,
            loading=run.config.loading.student,
        )(pairs, held_out, out)

    return level


class _Renamed:
    """Whoever watches, told of every step under one name."""

    def __init__(self, progress: Progress, step: str) -> None:
        self._progress, self._step = progress, step

    def __call__(self, _step: str, done: int, total: int) -> None:
        self._progress(self._step, done, total)

    def say(self, text: str) -> None:
        """Tells a line, if the other one does."""
        if isinstance(self._progress, Says):
            self._progress.say(f"{self._step}: {text}")

    def detail(self, _step: str, text: str) -> None:
        """Shows how fast it goes, if the other one does."""
        if isinstance(self._progress, Details):
            self._progress.detail(self._step, text)

    def confirm(self, question: str) -> bool:
        """Asks, if the other one does."""
        return not isinstance(self._progress, Says) or self._progress.confirm(question)

    def measured(self, what: str, step: int, value: float) -> None:
        """Hands on what training measured, under the step's name, if the other one takes it."""
        if isinstance(self._progress, Measures):
            self._progress.measured(f"{self._step} {what}", step, value)
