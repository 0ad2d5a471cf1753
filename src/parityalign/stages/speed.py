"""How fast the student answers before and after levelling: measured once, summarised on every call.

The ratio's interval is a bootstrap over the parts of the questions, each with both students' times.
"""

import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from parityalign.config import EvaluateSettings
from parityalign.core import Artifact, Decoding, Progress, Ratio, Speed, Usage, content_id, sample
from parityalign.engines import Asked, CachedModel
from parityalign.metrics import percentile_interval, resampled_means
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages._timing_trials import AFTER, BEFORE, Clock, InterleavedTiming, TimedStudent, Trial
from parityalign.stages.evaluate import speed_questions
from parityalign.stages.identify import as_asked
from parityalign.stages.level import choose_pairs, was_levelled

TRIALS, STUDENTS = "trials.jsonl", "students.jsonl"

NOT_WANTED = "not_wanted"
"""`evaluate.speed_questions` is 0."""
NO_QUESTIONS = "no_questions"
NOT_LEVELLED = "not_levelled"
"""The student after is the student before."""
REMOTE = "remote"
"""The student is remote; times would include the network and the server's other load."""


def _work(run: StageRun, artifact: Artifact) -> None:
    settings = run.config.evaluate
    after = run.levelled if was_levelled(run.artifact("student")) else None
    time_students(artifact, _questions(run), run.student, after, settings=settings, progress=run.progress)


def _questions(run: StageRun) -> list[Asked]:
    """Test questions; where there are none, those of pairs on held-out images."""
    config, seed = run.config, run.config.seed
    if run.tests:
        return speed_questions(run.tests, run.tasks, settings=config.evaluate, seed=seed)
    held = choose_pairs(run.judged, config.level, seed).held_out
    asked = [as_asked(pair, run.tasks[pair.task]) for pair, _ in held]
    return sample(asked, config.evaluate.speed_questions, f"speed {seed}", lambda question: question.item_id)


def _matters(run: StageRun) -> dict[str, str]:
    """Of pairs and verdicts only those that are asked matter."""
    asked = content_id(*(question.item_id for question in _questions(run))) if not run.tests else ""
    return {"pairs": asked, "verdicts": asked}


STAGE = Stage(
    "speed",
    command="evaluate",
    artifact="speed",
    of=("tests", "pairs", "verdicts", "student model", "student", "answer prompt"),
    parts=_matters,
    settings=("evaluate.speed_questions", "evaluate.limit", "evaluate.max_new_tokens", "seed"),
    work=_work,
    help="Time the student before and after on the same questions.",
)


def time_students(
    artifact: Artifact,
    questions: Sequence[Asked],
    before: CachedModel,
    after: CachedModel | None,
    *,
    settings: EvaluateSettings,
    progress: Progress,
    clock: Clock = time.perf_counter,
) -> None:
    """Times both students on the questions, and stores the trials.

    Args:
        artifact: Gets `trials.jsonl` and `students.jsonl`.
        questions: The same for both.
        before: The student before; its kept answers play no part.
        after: The student after. None: it was not trained.
        settings: How long answers may be.
        progress: Called after every trial.
        clock: The timer.
    """
    if artifact.finished:
        return
    artifact.remembered.clear()  # measured from the start, whatever an earlier process loaded
    trials: list[Trial] = []
    why_not = _why_not(questions, settings, after)
    if after and not why_not:
        loads, decoding = {BEFORE: before.load, AFTER: after.load}, Decoding(settings.max_new_tokens)
        timing = InterleavedTiming(loads, questions, decoding=decoding, clock=clock)
        why_not = REMOTE if not timing.are_local else None if timing.parts else NO_QUESTIONS
        if not why_not:
            trials = _run_trials(timing, progress)
            _write(artifact, trials, list(timing.measured.values()))
    artifact.finish(_counts(trials), not_measured=why_not)


def measured_speed(artifact: Artifact, *, resamples: int, seed: int) -> Speed:
    """Summarises the trials of `time_students`.

    Args:
        artifact: Finished.
        resamples: Bootstrap resamples of the parts for the interval.
        seed: Of the draws.
    """
    trials, counts = list(artifact.stream(TRIALS, Trial)), artifact.manifest["counts"]
    counted = {"questions": counts["questions timed"], "trials": counts["trials of each"]}
    if not trials:
        return Speed(**counted, not_measured=artifact.manifest["not_measured"])
    students = {student.who: student for student in artifact.stream(STUDENTS, TimedStudent)}
    of = {who: [trial for trial in trials if trial.who == who] for who in (BEFORE, AFTER)}
    return Speed(
        **counted,
        together=students[BEFORE].together,
        before=_usage(students[BEFORE], of[BEFORE]),
        after=_usage(students[AFTER], of[AFTER]),
        ratio=times_as_fast(_by_part(of[BEFORE]), _by_part(of[AFTER]), resamples=resamples, seed=seed),
    )


def times_as_fast(before: Sequence[float], after: Sequence[float], *, resamples: int, seed: int) -> Ratio:
    """Speed after levelling over speed before.

    Args:
        before: Seconds for each part of the questions before.
        after: Seconds for the same parts after.
        resamples: Bootstrap resamples of the parts.
        seed: Of the draws.
    """
    value = sum(before) / sum(after)
    if len(before) < 2:
        return Ratio(value=_short(value), ci=None)
    seconds, once = np.array([before, after], dtype=np.float64).T, np.ones(len(before))
    means = resampled_means(seconds, once, resamples=resamples, rng=np.random.default_rng([seed, len(before)]))
    low, high = percentile_interval(means[:, 0] / means[:, 1])
    return Ratio(value=_short(value), ci=(_short(low), _short(high)))


def _why_not(questions: Sequence[Asked], settings: EvaluateSettings, after: CachedModel | None) -> str | None:
    if not settings.speed_questions:
        return NOT_WANTED
    if not questions:
        return NO_QUESTIONS
    return None if after else NOT_LEVELLED


def _run_trials(timing: InterleavedTiming, progress: Progress) -> list[Trial]:
    trials: list[Trial] = []
    for trial in timing.trials():
        trials.append(trial)
        once = 2 * len(timing.parts)
        progress("evaluate speed", min(len(trials), once), once)
    return trials


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    of_one = [trial for trial in trials if trial.who == BEFORE]
    return {
        "questions timed": sum(trial.questions for trial in of_one if not trial.again),
        "trials of each": len(of_one),
    }


def _by_part(trials: Sequence[Trial]) -> list[float]:
    """Seconds for each part, all passes together."""
    seconds = [0.0] * (1 + max(trial.part for trial in trials))
    for trial in trials:
        seconds[trial.part] += trial.seconds
    return seconds


def _write(artifact: Artifact, trials: Sequence[Trial], students: Sequence[TimedStudent]) -> None:
    artifact.stream(TRIALS, Trial).write(trials)
    artifact.stream(STUDENTS, TimedStudent).write(students)


def _usage(student: TimedStudent, trials: Sequence[Trial]) -> Usage:
    questions = sum(trial.questions for trial in trials)
    return Usage(
        parameters=student.parameters,
        answers_per_second=_short(questions / sum(trial.seconds for trial in trials)),
        first_token_seconds=_short(median(trial.first_token_seconds for trial in trials)),
        peak_bytes=student.peak_bytes,
        words=_short(sum(trial.words for trial in trials) / questions),
    )


def _short(value: float) -> float:
    return round(float(value), 6)
