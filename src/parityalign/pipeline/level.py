"""The leveller of a run."""

from collections.abc import Callable, Sequence
from pathlib import Path

from parityalign import training
from parityalign.config import LevelSettings, backend_of, split_model
from parityalign.core import Leveller, LevelResult, Pair, UserError
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
        make: Callable[..., Leveller] = training.make_leveller
        return make(
            location,
            {task.name: task.answer_prompt for task in run.tasks.values()},
            settings=settings,
            objective=objective_of(run, settings, [*pairs, *held_out]),
            seed=seed,
            progress=lambda _, done, total: run.progress(step, done, total),
            loading=run.config.loading.student,
        )(pairs, held_out, out)

    return level
