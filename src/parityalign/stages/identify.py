"""Identify (the paper's Parity Identifier): finds the pairs that the teacher has right and the student wrong.

The student is asked first. The teacher has to answer again only where the student failed: a pair that the
student has right is not a gap whatever the teacher says, and the large model's forward passes cost most.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from parityalign.config import IdentifySettings
from parityalign.core import (
    Answer,
    Artifact,
    Decoding,
    Judged,
    Pair,
    PairFilter,
    Progress,
    Task,
    UserError,
    Verdict,
    VerdictKind,
    load_part,
)
from parityalign.engines import Asked, CachedModel, TwoModels
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.judging import NO_STUDENT_ANSWER, NO_TEACHER_ANSWER, NOT_ASKED, Given, Judge, dropped, judge_of

STUDENT_ANSWERS = "student.jsonl"
TEACHER_ANSWERS = "teacher.jsonl"
VERDICTS = "verdicts.jsonl"
GAPS = "gaps.jsonl"

CUT_OFF = "cut_off"
"""Why a pair is dropped: a model's answer ended at its token limit before any text, as when it only thought."""

_NO_FILTERS: Mapping[str, PairFilter] = MappingProxyType({})


def _work(run: StageRun, artifact: Artifact) -> None:
    models, settings = TwoModels(run.student, run.teacher), run.config.identify
    filters = {name: load_part("filters", name, PairFilter) for name in run.config.filters}
    identify_gaps(
        artifact,
        run.pairs,
        run.tasks,
        models,
        settings=settings,
        progress=run.progress,
        filters=filters,
    )


STAGE = Stage(
    "identify",
    artifact="verdicts",
    of=("pairs", "student model", "teacher model", "answer prompt", "metric"),
    settings=("identify",),
    derived=lambda run: {"filters": list(run.config.filters)} if run.config.filters else {},
    derives=True,
    work=_work,
    help="Find the gaps: pairs that the teacher has right and the student wrong.",
)


def identify_gaps(
    artifact: Artifact,
    pairs: Sequence[Pair],
    tasks: Mapping[str, Task],
    models: TwoModels,
    *,
    settings: IdentifySettings,
    progress: Progress,
    filters: Mapping[str, PairFilter] = _NO_FILTERS,
) -> None:
    """Gives every pair a verdict.

    Args:
        artifact: Gets both models' answers, `verdicts.jsonl` and `gaps.jsonl`.
        pairs: What the teacher wrote.
        tasks: The tasks of the pairs, by name.
        models: Asked only what their answer store lacks.
        settings: The rule, its threshold, and when the teacher is asked.
        progress: Called after every batch.
        filters: By name; a pair that one of them rejects is dropped with its reason, and no model is asked about it.
    """
    if artifact.finished:
        return
    judges = {name: judge_of(task, settings) for name, task in tasks.items()}

    def ask(who: str, file: str, asked: Sequence[Pair], model: CachedModel) -> dict[str, Answer]:
        answers = model.answer(
            [as_asked(pair, tasks[pair.task]) for pair in asked],
            decoding=Decoding(settings.max_new_tokens),
            batch_size=settings.batch_size,
            on_progress=lambda done, total: progress(f"identify {who}", done, total),
        )
        artifact.stream(file, Answer).write(answers.values())
        return answers

    marks = {pair.pair_id: mark for pair in pairs if (mark := _mark(pair, filters))}
    student = ask("student", STUDENT_ANSWERS, [pair for pair in pairs if pair.pair_id not in marks], models.student)
    first = [
        dropped(pair.pair_id, marks[pair.pair_id], NOT_ASKED, NOT_ASKED)
        if pair.pair_id in marks
        else _verdict(pair, student, {}, judges[pair.task])
        for pair in pairs
    ]
    undecided = [pair for pair, verdict in zip(pairs, first, strict=True) if verdict.reason == NO_TEACHER_ANSWER]
    teacher = ask("teacher", TEACHER_ANSWERS, undecided, models.teacher)
    again = {pair.pair_id: _verdict(pair, student, teacher, judges[pair.task]) for pair in undecided}
    _finish(artifact, [Judged(pair, again.get(pair.pair_id, each)) for pair, each in zip(pairs, first, strict=True)])


def _mark(pair: Pair, filters: Mapping[str, PairFilter]) -> str | None:
    """The first filter's reason against a pair, with the filter's name."""
    for name, each in filters.items():
        reason = each.keep(pair)
        if not isinstance(reason, str | None):
            raise UserError(
                f"the filter of pairs {name!r} gave {reason!r} for the pair {pair.pair_id}. "
                "Expected: None for a pair to keep, else the reason in words."
            )
        if reason:
            return f"{name}: {reason}"
    return None


def judged_pairs(artifact: Artifact, pairs: Sequence[Pair]) -> list[Judged]:
    """The pairs with their verdicts, in the order of the pairs.

    Raises:
        ValueError: The verdicts are those of other pairs.
    """
    return [Judged(pair, verdict) for pair, verdict in zip(pairs, artifact.stream(VERDICTS, Verdict), strict=True)]


def as_asked(pair: Pair, task: Task) -> Asked:
    """A pair's question for a model."""
    # The answer is not sent to a model here, but the student would be trained on it.
    untrusted = f"{pair.question}\n{pair.answer}"
    prompt = task.answer_prompt.format(question=pair.question)
    return Asked(pair.pair_id, pair.image, prompt, untrusted, pair.image_id)


def _verdict(pair: Pair, student: Mapping[str, Answer], teacher: Mapping[str, Answer], judge: Judge) -> Verdict:
    return judge.verdict(
        pair.pair_id,
        pair.answer,
        student=_given(student.get(pair.pair_id), NO_STUDENT_ANSWER),
        teacher=_given(teacher.get(pair.pair_id), NO_TEACHER_ANSWER),
        question=pair.question,
    )


def _given(answer: Answer | None, missing: str) -> Given:
    if answer is None:
        return Given(None, missing)
    if answer.not_asked:
        return Given(None, answer.not_asked)
    return Given(None, CUT_OFF) if answer.cut_off and not answer.text else Given(answer.text, missing)


def _finish(artifact: Artifact, judged: Sequence[Judged]) -> None:
    """Writes verdicts and gaps, and counts of each kind and of each reason to drop."""
    gaps = []
    by_task: dict[str, Counter[str]] = {}
    for pair, verdict in judged:
        counts = by_task.setdefault(pair.task, Counter())
        counts[verdict.verdict] += 1
        if verdict.verdict == VerdictKind.DROPPED:
            counts[f"dropped: {verdict.reason}"] += 1
        if verdict.verdict == VerdictKind.TEACHER_ONLY:
            gaps.append(pair.model_copy(update={"image": ""}))  # as in the file of all pairs
    verdicts = [verdict for _, verdict in judged]
    artifact.stream(VERDICTS, Verdict).write(verdicts)
    artifact.stream(GAPS, Pair).write(gaps)
    total = {"pairs": len(judged), "gaps": len(gaps), **sum(by_task.values(), Counter[str]())}
    artifact.finish(total, by_task={task: dict(counts) for task, counts in by_task.items()})
