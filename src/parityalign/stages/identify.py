"""Identify (the paper's Parity Identifier): finds the pairs that the teacher has right and the student wrong.

The student is asked first. The teacher need answer again only where the student failed: a pair that the
student has right is no gap whatever the teacher says, and the larger model's passes are the dear ones.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from parityalign.config import IdentifySettings
from parityalign.core import Answer, Artifact, Pair, Progress, Task, Verdict, VerdictKind, write_all
from parityalign.engines import Asked, LoadModel, answer_all
from parityalign.stages.judging import NO_STUDENT_ANSWER, NO_TEACHER_ANSWER, Given, Judge, judge_of

STUDENT_ANSWERS = "student.jsonl"
TEACHER_ANSWERS = "teacher.jsonl"
VERDICTS = "verdicts.jsonl"
GAPS = "gaps.jsonl"


def identify_gaps(
    artifact: Artifact,
    pairs: Sequence[Pair],
    tasks: Mapping[str, Task],
    load_student: LoadModel,
    load_teacher: LoadModel,
    *,
    settings: IdentifySettings,
    progress: Progress,
) -> None:
    """Gives every pair a verdict.

    Args:
        artifact: Where both models' answers, `verdicts.jsonl` and `gaps.jsonl` go.
        pairs: What the teacher wrote.
        tasks: The tasks of the pairs, by name.
        load_student: Called only if the student has something left to answer.
        load_teacher: Called only if the teacher has, after the student was dropped.
        settings: The rule, its threshold, and when the teacher is asked.
        progress: Told of every batch.
    """
    if artifact.finished:
        return
    judges = {name: judge_of(task, settings) for name, task in tasks.items()}

    def ask(who: str, file: str, asked: Sequence[Pair], load: LoadModel) -> dict[str, Answer]:
        return answer_all(
            artifact.stream(file, Answer),
            [as_asked(pair, tasks[pair.task]) for pair in asked],
            load,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            on_progress=lambda done, total: progress(f"identify {who}", done, total),
        )

    student = ask("student", STUDENT_ANSWERS, pairs, load_student)
    first = [_verdict(pair, student, {}, judges[pair.task]) for pair in pairs]
    undecided = [pair for pair, verdict in zip(pairs, first, strict=True) if verdict.reason == NO_TEACHER_ANSWER]
    teacher = ask("teacher", TEACHER_ANSWERS, undecided, load_teacher)
    again = {pair.pair_id: _verdict(pair, student, teacher, judges[pair.task]) for pair in undecided}
    verdicts = [again.get(verdict.pair_id, verdict) for verdict in first]
    _finish(artifact, pairs, verdicts)


def verdicts_of(artifact: Artifact) -> list[Verdict]:
    """One verdict a pair, in the order of the pairs."""
    return list(artifact.stream(VERDICTS, Verdict))


def as_asked(pair: Pair, task: Task) -> Asked:
    """A pair's question as it goes to a model."""
    # The answer goes to no model here, but the student would be trained on it.
    untrusted = f"{pair.question}\n{pair.answer}"
    return Asked(pair.pair_id, pair.image, task.answer_prompt.format(question=pair.question), untrusted)


def _verdict(pair: Pair, student: Mapping[str, Answer], teacher: Mapping[str, Answer], judge: Judge) -> Verdict:
    return judge.verdict(
        pair.pair_id,
        pair.answer,
        student=_given(student.get(pair.pair_id), NO_STUDENT_ANSWER),
        teacher=_given(teacher.get(pair.pair_id), NO_TEACHER_ANSWER),
    )


def _given(answer: Answer | None, missing: str) -> Given:
    if answer is None:
        return Given(None, missing)
    return Given(None, answer.not_asked) if answer.not_asked else Given(answer.text, missing)


def _finish(artifact: Artifact, pairs: Sequence[Pair], verdicts: Sequence[Verdict]) -> None:
    """Writes verdicts and gaps, then how many there are of each kind and of each reason to drop."""
    gaps = []
    by_task: dict[str, Counter[str]] = {}
    for pair, verdict in zip(pairs, verdicts, strict=True):
        counts = by_task.setdefault(pair.task, Counter())
        counts[verdict.verdict] += 1
        if verdict.verdict == VerdictKind.DROPPED:
            counts[f"dropped: {verdict.reason}"] += 1
        if verdict.verdict == VerdictKind.TEACHER_ONLY:
            gaps.append(pair)
    write_all(artifact.stream(VERDICTS, Verdict), verdicts, lambda verdict: verdict.pair_id)
    write_all(artifact.stream(GAPS, Pair), gaps, lambda pair: pair.pair_id)
    total = {"pairs": len(pairs), "gaps": len(gaps), **sum(by_task.values(), Counter[str]())}
    artifact.finish(total, by_task={task: dict(counts) for task, counts in by_task.items()})
