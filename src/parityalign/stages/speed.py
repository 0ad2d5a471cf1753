"""How fast the student answers before and after levelling: measured once, put together as often as asked.

The ratio's interval is a bootstrap over the parts of the questions, each with both students' times.
"""

import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from parityalign.config import EvaluateSettings
from parityalign.core import Artifact, Decoding, Progress, Ratio, Speed, Usage, write_all
from parityalign.engines import Asked, LoadModel
from parityalign.metrics import percentile_interval, resampled_means
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages._timing_trials import AFTER, BEFORE, Clock, Student, Students, Turn
from parityalign.stages.evaluate import speed_questions
from parityalign.stages.level import was_levelled

TURNS, STUDENTS = "turns.jsonl", "students.jsonl"

NOT_WANTED = "not_wanted"
"""`evaluate.speed_questions` is 0."""
NO_QUESTIONS = "no_questions"
NOT_LEVELLED = "not_levelled"
"""The student after is the student before."""
ELSEWHERE = "not_in_this_process"
"""It is a server that answers; its times would be those of the network and of what else it does."""


def _work(run: StageRun, artifact: Artifact) -> None:
    settings = run.config.evaluate
    questions = speed_questions(run.tests, run.tasks, settings=settings, seed=run.config.seed)
    after = run.load_levelled if was_levelled(run.artifact("student")) else None
    time_students(artifact, questions, run.load_student, after, settings=settings, progress=run.progress)


STAGE = Stage(
    "speed",
    command="evaluate",
    artifact="speed",
    of=("tests", "student model", "student", "answer prompt"),
    settings=("evaluate.speed_questions", "evaluate.limit", "evaluate.max_new_tokens", "seed"),
    work=_work,
    help="Time the student before and after on the same questions.",
)


def time_students(
    artifact: Artifact,
    questions: Sequence[Asked],
    load_before: LoadModel,
    load_after: LoadModel | None,
    *,
    settings: EvaluateSettings,
    progress: Progress,
    clock: Clock = time.perf_counter,
) -> None:
    """Has both students answer the questions, and keeps what they took.

    Args:
        artifact: Where `turns.jsonl` and `students.jsonl` go.
        questions: The same for both.
        load_before: Loads the student before.
        load_after: Loads the student after. None: it was left as it is.
        settings: How long answers may be.
        progress: Told of every turn.
        clock: What times are read from.
    """
    if artifact.finished:
        return
    artifact.remembered.clear()  # it is measured from the beginning, whatever an earlier process loaded
    turns: list[Turn] = []
    why_not = _why_not(questions, settings, load_after)
    if load_after and not why_not:
        loads, decoding = {BEFORE: load_before, AFTER: load_after}, Decoding(settings.max_new_tokens)
        students = Students(loads, questions, decoding=decoding, clock=clock)
        why_not = ELSEWHERE if not students.are_local else None if students.parts else NO_QUESTIONS
        if not why_not:
            turns = _taken(students, progress)
            _write(artifact, turns, list(students.known.values()))
    artifact.finish(_counts(turns), not_measured=why_not)


def measured_speed(artifact: Artifact, *, resamples: int, seed: int) -> Speed:
    """What `time_students` measured, put together.

    Args:
        artifact: Finished.
        resamples: How often the parts are drawn for the interval.
        seed: Of the draws.
    """
    turns, counts = list(artifact.stream(TURNS, Turn)), artifact.manifest["counts"]
    counted = {"questions": counts["questions timed"], "turns": counts["turns of each"]}
    if not turns:
        return Speed(**counted, not_measured=artifact.manifest["not_measured"])
    students = {student.who: student for student in artifact.stream(STUDENTS, Student)}
    of = {who: [turn for turn in turns if turn.who == who] for who in (BEFORE, AFTER)}
    return Speed(
        **counted,
        together=students[BEFORE].together,
        before=_usage(students[BEFORE], of[BEFORE]),
        after=_usage(students[AFTER], of[AFTER]),
        ratio=times_as_fast(_by_part(of[BEFORE]), _by_part(of[AFTER]), resamples=resamples, seed=seed),
    )


def times_as_fast(before: Sequence[float], after: Sequence[float], *, resamples: int, seed: int) -> Ratio:
    """How many times as fast the student is after.

    Args:
        before: Seconds that it took for each part of the questions before.
        after: For the same parts, after.
        resamples: How often the parts are drawn.
        seed: Of the draws.
    """
    value = sum(before) / sum(after)
    if len(before) < 2:
        return Ratio(value=_short(value), ci=None)
    seconds, once = np.array([before, after], dtype=np.float64).T, np.ones(len(before))
    means = resampled_means(seconds, once, resamples=resamples, rng=np.random.default_rng([seed, len(before)]))
    low, high = percentile_interval(means[:, 0] / means[:, 1])
    return Ratio(value=_short(value), ci=(_short(low), _short(high)))


def _why_not(questions: Sequence[Asked], settings: EvaluateSettings, load_after: LoadModel | None) -> str | None:
    if not settings.speed_questions:
        return NOT_WANTED
    if not questions:
        return NO_QUESTIONS
    return None if load_after else NOT_LEVELLED


def _taken(students: Students, progress: Progress) -> list[Turn]:
    turns: list[Turn] = []
    for turn in students.turns():
        turns.append(turn)
        once = 2 * len(students.parts)
        progress("evaluate speed", min(len(turns), once), once)
    return turns


def _counts(turns: Sequence[Turn]) -> dict[str, int]:
    of_one = [turn for turn in turns if turn.who == BEFORE]
    return {"questions timed": sum(turn.questions for turn in of_one if not turn.again), "turns of each": len(of_one)}


def _by_part(turns: Sequence[Turn]) -> list[float]:
    """Seconds for each part, all passes together."""
    seconds = [0.0] * (1 + max(turn.part for turn in turns))
    for turn in turns:
        seconds[turn.part] += turn.seconds
    return seconds


def _write(artifact: Artifact, turns: Sequence[Turn], students: Sequence[Student]) -> None:
    for file in (TURNS, STUDENTS):  # times of a process that was cut off do not go with those of this one
        (artifact.path / file).unlink(missing_ok=True)
    write_all(artifact.stream(TURNS, Turn), turns, lambda turn: f"{turn.who} {turn.part} {turn.again}")
    write_all(artifact.stream(STUDENTS, Student), students, lambda student: student.who)


def _usage(student: Student, turns: Sequence[Turn]) -> Usage:
    questions = sum(turn.questions for turn in turns)
    return Usage(
        parameters=student.parameters,
        answers_per_second=_short(questions / sum(turn.seconds for turn in turns)),
        first_token_seconds=_short(median(turn.first_token_seconds for turn in turns)),
        peak_bytes=student.peak_bytes,
        words=_short(sum(turn.words for turn in turns) / questions),
    )


def _short(value: float) -> float:
    return round(float(value), 6)
