"""The scores of a run, from the artifacts of its last stages; recomputed each time, which takes seconds."""

from collections.abc import Sequence

from parityalign.core import Artifact, HeldOut, HeldOutPair, Scores
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.acceptance import HELD_OUT, summary
from parityalign.stages.evaluate import score_run_answers
from parityalign.stages.forgotten import pair_regressions
from parityalign.stages.level import was_levelled
from parityalign.stages.speed import measured_speed

SCORED = ("answers", "forgotten", "speed")
"""The artifacts that scores are put together from."""


def scored_from(stages: Sequence[Stage]) -> set[str]:
    """The artifacts that the scores hang on, directly or by what those are made of.

    What training may also use, such as the discrepancy, is not among them: level says itself when that changes it.

    Args:
        stages: Of the run, in their order.
    """
    found = set(SCORED)
    for stage in reversed(stages):
        if stage.artifact in found:
            found.update(stage.of)
    return found


def score_of_run(run: StageRun) -> Scores:
    """The scores of the answers, the regressions, and the student's speed before and after."""
    config, seed, settings = run.config, run.config.seed, run.config.evaluate
    answers, asked_again, timed = map(run.artifact, SCORED)
    scores = score_run_answers(answers, run.tests, run.tasks, settings=settings, seed=seed, left_out=run.left_out)
    lost = pair_regressions(asked_again, run.pairs, run.tasks, settings=config.identify)
    speed = measured_speed(timed, resamples=settings.resamples, seed=seed)
    forgotten = scores.forgotten.model_copy(update={"pairs": lost})
    held_out = held_out_of(run.artifact("student"), seed)
    return scores.model_copy(update={"forgotten": forgotten, "held_out": held_out, "speed": speed})


def held_out_of(student: Artifact, seed: int) -> HeldOut | None:
    """What the held-out images say; None if nothing was trained, or none of their pairs can judge."""
    held = list(student.stream(HELD_OUT, HeldOutPair))
    return summary(held, accepted=was_levelled(student), seed=seed) if held else None
