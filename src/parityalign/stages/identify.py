"""Identify (the paper's Parity Identifier): finds the pairs that the teacher has right and the student wrong.

The student is asked first. The teacher has to answer again only where the student failed: a pair that the
student has right is not a gap whatever the teacher says, and the large model's forward passes cost most.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from parityalign.config import IdentifySettings, VerifySettings
from parityalign.core import (
    Answer,
    Artifact,
    Decoding,
    Judged,
    Pair,
    Progress,
    Reply,
    Stream,
    Task,
    Verdict,
    VerdictKind,
    refuse_changed,
)
from parityalign.data import count_pairs
from parityalign.engines import SPECIAL_TOKEN, Asked, CachedModel, TwoModels, askable
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.annotate import REPLIES, asked_images, pairs_in
from parityalign.stages.judging import NO_STUDENT_ANSWER, NO_TEACHER_ANSWER, NOT_ASKED, Given, Judge, dropped, judge_of
from parityalign.stages.own_pairs import NONE_GIVEN, GivenAnswers, given_answers
from parityalign.stages.reviewing import NO_REVIEW, REVIEW, REVIEWED, Mark, Review, write_review
from parityalign.stages.settling import Settling
from parityalign.stages.verifying import (
    ChosenFilter,
    Teacher,
    filters_of,
    likelihoods_of,
    marked_pairs,
    questions_of,
    without_marked_gaps,
)

STUDENT_ANSWERS = "student.jsonl"
TEACHER_ANSWERS = "teacher.jsonl"
VERDICTS = "verdicts.jsonl"
GAPS = "gaps.jsonl"

CUT_OFF = "cut_off"
"""Why a pair is dropped: a model's answer ended at its token limit before any text, as when it only thought."""


class Known(NamedTuple):
    """What is known of the pairs before a model is asked."""

    filters: Sequence[ChosenFilter] = ()
    """A pair that one of them has a reason against is dropped with it."""
    review: Review = NO_REVIEW
    """A person's marks; a pair that one of them drops is treated likewise."""
    given: GivenAnswers = NONE_GIVEN
    """Answers that need not be asked for."""
    likelihoods: Mapping[str, float] = MappingProxyType({})
    """How likely the replies were that pairs were read from; see `likelihoods_of`."""

    def marks(self, pairs: Sequence[Pair]) -> dict[str, str]:
        """Why pairs are dropped before a model is asked about them, by pair id."""
        marks = {pair.pair_id: reason for pair in pairs if (reason := self.review.reason(pair))}
        return marks | marked_pairs([pair for pair in pairs if pair.pair_id not in marks], self.filters)


_NOTHING_KNOWN = Known()


def _work(run: StageRun, artifact: Artifact) -> None:
    models, settings = TwoModels(run.student, run.teacher, run.second_teacher), run.config.identify
    made = run.artifact("pairs")
    known = Known(filters_of(run.config), run.review, given_answers(made), likelihoods_of(made.stream(REPLIES, Reply)))
    identify_gaps(
        artifact,
        run.pairs,
        run.tasks,
        models,
        settings=settings,
        progress=run.progress,
        known=known,
    )


def pairs_at_most(run: StageRun) -> int:
    """The most pairs that there can be: one from every draw, and all of one's own."""
    drawn = len(asked_images(run.artifact("images"))) * run.config.annotate.pairs_per_image
    return drawn + sum(count_pairs(spec, name) for name, data in run.config.tasks.items() for spec in data.pairs)


def _filter_settings(run: StageRun) -> dict[str, object]:
    """The filters that are on: what is off is as if it were not there."""
    own = {f"verify.{name}": setting for name, setting in run.config.verify.switched_on().items()}
    return own | ({"filters": list(run.config.filters)} if run.config.filters else {})


STAGE = Stage(
    "identify",
    artifact="verdicts",
    of=("pairs", "review marks", "student model", "teacher model", "answer prompt", "metric"),
    also_of=lambda config: ("second_teacher model",) if config.second_teacher else (),
    settings=("identify",),
    derived=_filter_settings,
    derives=True,
    # Both models are asked, filters ask both teachers, and the first is perhaps asked about each of both answers.
    at_most=lambda run: (
        (2 + 2 * (run.config.identify.settle is not None) + questions_of(run.config)) * pairs_at_most(run)
    ),
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
    known: Known = _NOTHING_KNOWN,
) -> None:
    """Gives every pair a verdict.

    Args:
        artifact: Gets both models' answers, `verdicts.jsonl` and `gaps.jsonl`.
        pairs: All pairs, with a person's corrections.
        tasks: The tasks of the pairs, by name.
        models: Asked only what their answer store lacks.
        settings: The rule, its threshold, and when the teacher is asked.
        progress: Called after every batch.
        known: What decides before a model is asked.
    """
    if artifact.finished:
        return
    given, marks = known.given, known.marks(pairs)
    settling = Settling(
        models.teacher, {name: judge_of(task, settings) for name, task in tasks.items()}, settings, progress
    )
    asking = _Asking(artifact, tasks, settings, progress)
    left = [pair for pair in pairs if pair.pair_id not in marks]
    student = asking.answers("student", STUDENT_ANSWERS, left, models.student, given.student)
    judges = settling.judges_after("student", left, student)
    first = [
        dropped(pair.pair_id, marks[pair.pair_id], NOT_ASKED, NOT_ASKED)
        if pair.pair_id in marks
        else _verdict(pair, student, {}, judges[pair.task])
        for pair in pairs
    ]
    undecided = [pair for pair, verdict in zip(pairs, first, strict=True) if verdict.reason == NO_TEACHER_ANSWER]
    teacher = asking.answers("teacher", TEACHER_ANSWERS, undecided, models.teacher, given.teacher)
    judges = settling.judges_after("teacher", undecided, teacher)
    again = {pair.pair_id: _verdict(pair, student, teacher, judges[pair.task]) for pair in undecided}
    judged = [Judged(pair, again.get(pair.pair_id, each)) for pair, each in zip(pairs, first, strict=True)]
    taken = {"student": student.keys() & given.student.keys(), "teacher": teacher.keys() & given.teacher.keys()}
    facts = _facts(artifact, known, pairs, {who: len(pair_ids) for who, pair_ids in taken.items() if pair_ids})
    looking = Teacher(
        models.teacher,
        second=models.second_teacher,
        said=teacher,
        asked={pair.pair_id: as_asked(pair, tasks[pair.task]) for pair in undecided},
        likelihoods=known.likelihoods,
        judges=judges,
        settings=settings,
        artifact=artifact,
        on_progress=lambda done, total: progress("verify", done, total),
    )
    _finish(artifact, without_marked_gaps(judged, known.filters, looking), facts | settling.write(artifact))


class _Asking(NamedTuple):
    """Both models are asked in the same way."""

    artifact: Artifact
    tasks: Mapping[str, Task]
    settings: IdentifySettings
    progress: Progress

    def answers(
        self, who: str, file: str, pairs: Sequence[Pair], model: CachedModel, said: Mapping[str, str]
    ) -> dict[str, Answer]:
        """A model's answers by pair id; those that were given with the pairs are not asked for.

        Args:
            who: Teacher or student.
            file: Gets the answers that are asked for.
            pairs: The pairs.
            model: The model.
            said: Answers that came with pairs, by pair id.
        """
        answers = answers_to(
            model,
            [pair for pair in pairs if pair.pair_id not in said],
            self.tasks,
            settings=self.settings,
            on_progress=lambda done, total: self.progress(f"identify {who}", done, total),
        )
        self.artifact.stream(file, Answer).write(answers.values())
        given = [as_asked(pair, self.tasks[pair.task]) for pair in pairs if pair.pair_id in said]
        return answers | _as_said(given, said, model)


def _facts(artifact: Artifact, known: Known, pairs: Sequence[Pair], taken: Mapping[str, int]) -> dict[str, object]:
    """For the manifest: what a person marked, and how many answers of each model were taken from files."""
    facts: dict[str, object] = {}
    if reviewed := write_review(artifact, known.review, pairs):
        facts["review"] = reviewed
    if taken:
        facts["given_answers"] = dict(taken)
        artifact.note(_told_of_given(taken))
    return facts


def _as_said(asked: Sequence[Asked], said: Mapping[str, str], model: CachedModel) -> dict[str, Answer]:
    """Answers that came in with their pairs; what a model would not read as plain text is not trained on either."""
    plain = {each.item_id for each in askable(asked, model.special_tokens)} if asked else ()
    return {
        each.item_id: Answer(item_id=each.item_id, text=said[each.item_id])
        if each.item_id in plain
        else Answer(item_id=each.item_id, text="", not_asked=SPECIAL_TOKEN)
        for each in asked
    }


def _told_of_given(taken: Mapping[str, int]) -> str:
    counts = " and ".join(f"{count:,} of the {who}" for who, count in taken.items())
    return f"Answers were taken from the files of pairs, whatever prompt they are answers to: {counts}."


def reason_code(reason: str) -> str:
    """What a reason to drop is counted under: a filter's name; a person gives reasons in words of their own."""
    who = reason.partition(": ")[0]
    return who if who == REVIEW or who in VerifySettings.model_fields else reason


def judged_pairs(artifact: Artifact, pairs: Sequence[Pair]) -> list[Judged]:
    """The pairs with their verdicts, in the order of the pairs.

    Raises:
        ValueError: The verdicts are those of other pairs.
    """
    return [Judged(pair, verdict) for pair, verdict in zip(pairs, artifact.stream(VERDICTS, Verdict), strict=True)]


def reviewed_pairs(run: Path) -> Iterator[Pair]:
    """The pairs of a run folder as they were judged, with the paths of their images.

    Raises:
        UserError: A file is damaged.
    """
    path = run / STAGE.artifact / REVIEWED
    refuse_changed(path)
    marks = Stream(path, Mark, read_only=True)
    yield from Review({mark.pair_id: mark for mark in marks}).corrected(pairs_in(run))


def answers_to(
    model: CachedModel,
    pairs: Sequence[Pair],
    tasks: Mapping[str, Task],
    *,
    settings: IdentifySettings,
    on_progress: Callable[[int, int], None],
) -> dict[str, Answer]:
    """A model's greedy answers to pairs, by pair id; every stage that asks about pairs asks them so.

    Args:
        model: Asked only what its answer store lacks.
        pairs: With distinct ids.
        tasks: The tasks of the pairs, by name.
        settings: How long answers may be, and how many questions are asked at a time.
        on_progress: Called with (pairs answered, pairs in total).
    """
    return model.answer(
        [as_asked(pair, tasks[pair.task]) for pair in pairs],
        decoding=Decoding(settings.max_new_tokens),
        batch_size=settings.batch_size,
        on_progress=on_progress,
    )


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


def _finish(artifact: Artifact, judged: Sequence[Judged], facts: Mapping[str, object]) -> None:
    """Writes verdicts and gaps, and counts of each kind and of each reason to drop."""
    gaps = []
    by_task: dict[str, Counter[str]] = {}
    for pair, verdict in judged:
        counts = by_task.setdefault(pair.task, Counter())
        counts[verdict.verdict] += 1
        if verdict.verdict == VerdictKind.DROPPED:
            counts[f"dropped: {reason_code(verdict.reason)}"] += 1
        if verdict.verdict == VerdictKind.TEACHER_ONLY:
            gaps.append(pair.model_copy(update={"image": ""}))  # as in the file of all pairs
    verdicts = [verdict for _, verdict in judged]
    artifact.stream(VERDICTS, Verdict).write(verdicts)
    artifact.stream(GAPS, Pair).write(gaps)
    total = {"pairs": len(judged), "gaps": len(gaps), **sum(by_task.values(), Counter[str]())}
    artifact.finish(total, by_task={task: dict(counts) for task, counts in by_task.items()}, **facts)
