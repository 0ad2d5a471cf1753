"""Retention, measured on a run: whether levelling cost the student speed, or answers that it had right.

Like `pipeline.py` this module joins packages. Both measurements are artifacts of their own, so that neither is repeated
when the other or the answers change; the summaries are computed each time, as scores are.
"""

from collections.abc import Sequence
from typing import NamedTuple

from parityalign.core import Pair, RegressionsByTask, Speed, Verdict
from parityalign.pipeline.run import Run
from parityalign.stages import (
    RunScores,
    ask_again,
    choose_pairs,
    measured_speed,
    pair_regressions,
    previously_right,
    speed_questions,
    time_students,
    was_levelled,
)


class Retention(NamedTuple):
    """What was measured."""

    pairs: RegressionsByTask
    speed: Speed

    def beside(self, scores: RunScores) -> RunScores:
        """The scores with both measurements added."""
        forgotten = scores.forgotten.model_copy(update={"pairs": self.pairs})
        return scores.model_copy(update={"forgotten": forgotten, "speed": self.speed})


def measure_retention(run: Run, pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> Retention:
    """Measures the levelled student of a run beside the one before, unless that is done."""
    return Retention(_pair_regressions(run, pairs, verdicts), _speed(run))


def _pair_regressions(run: Run, pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> RegressionsByTask:
    config = run.config
    of = ["pairs", "verdicts", "student", "answer prompt"]
    chosen_by = ["level.select", "level.replay", "level.held_out", "evaluate.forgotten_pairs", "seed"]
    asked_by = ["identify.max_new_tokens"]
    settings = [*chosen_by, *asked_by]
    with run.stage("evaluate", "forgotten", of=of, settings=settings, called="evaluate, forgotten") as asked:
        if not asked.finished:
            trained = {pair.pair_id for pair in choose_pairs(pairs, verdicts, config.level, config.seed).training}
            known = previously_right(pairs, verdicts, trained, settings=config.evaluate, seed=config.seed)
            after = run.load_levelled if was_levelled(run.artifact("student")) else None
            ask_again(asked, known, run.tasks, after, settings=config.identify, progress=run.progress)
    return pair_regressions(asked, pairs, run.tasks, settings=config.identify)


def _speed(run: Run) -> Speed:
    settings, seed = run.config.evaluate, run.config.seed
    questions = speed_questions(run.tests, run.tasks, settings=settings, seed=seed)
    of = ["tests", "student model", "student", "answer prompt"]
    plan = ["evaluate.speed_questions", "evaluate.limit", "evaluate.max_new_tokens", "seed"]
    with run.stage("evaluate", "speed", of=of, settings=plan, called="evaluate, speed") as timed:
        after = run.load_levelled if was_levelled(run.artifact("student")) else None
        time_students(timed, questions, run.load_student, after, settings=settings, progress=run.progress)
    return measured_speed(timed, resamples=settings.resamples, seed=seed)
