"""Regressions: what the student had right before levelling and has wrong after."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from parityalign.config import EvaluateSettings, IdentifySettings
from parityalign.core import (
    Answer,
    Artifact,
    Judged,
    Pair,
    Progress,
    Regressions,
    RegressionsByTask,
    Task,
    content_id,
    sample,
)
from parityalign.engines import CachedModel
from parityalign.stages._outcomes import Outcome
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.acceptance import HAD_RIGHT, share_of
from parityalign.stages.identify import answers_to, pairs_at_most
from parityalign.stages.judging import Judge, judge_of
from parityalign.stages.level import choose_pairs, was_levelled

AFTER = "after.jsonl"


def _work(run: StageRun, artifact: Artifact) -> None:
    after = run.levelled if was_levelled(run.artifact("student")) else None
    ask_again(artifact, _known(run), run.tasks, after, settings=run.config.identify, progress=run.progress)


def _known(run: StageRun) -> "list[PreviouslyRight]":
    config = run.config
    trained = {pair.pair_id for pair in choose_pairs(run.judged, config.level, config.seed).training}
    return previously_right(run.judged, trained, settings=config.evaluate, seed=config.seed)


def _matters(run: StageRun) -> dict[str, str]:
    """Of pairs and verdicts only the pairs that are asked again matter."""
    known = content_id(*(part for each in _known(run) for part in (each.pair.identity, each.said)))
    return {"pairs": known, "verdicts": known}


STAGE = Stage(
    "forgotten",
    command="evaluate",
    artifact="forgotten",
    of=("pairs", "verdicts", "student", "answer prompt"),
    settings=(
        *("level.select", "level.replay", "level.held_out", "level.held_out_pairs", "evaluate.forgotten_pairs", "seed"),
        "identify.max_new_tokens",
    ),
    parts=_matters,
    derives=True,
    at_most=lambda run: min(run.config.evaluate.forgotten_pairs, pairs_at_most(run)),
    work=_work,
    help="Ask the levelled student again what it had right before.",
)


class PreviouslyRight(NamedTuple):
    """A pair that the student had right before."""

    pair: Pair
    said: str
    """The answer of the student before."""


class Case(NamedTuple):
    """A question or pair that the student had right before."""

    task: str
    image: str
    lost: bool
    """Whether the student has it wrong after."""


def previously_right(
    judged: Sequence[Judged],
    trained: Collection[str],
    *,
    settings: EvaluateSettings,
    seed: int,
) -> list[PreviouslyRight]:
    """The pairs that the student had right and was not trained on; a sample by identity if they are many.

    Args:
        judged: All pairs.
        trained: The `pair_id`s that the student was trained on.
        settings: The most pairs.
        seed: Of the sample.
    """
    known = [
        PreviouslyRight(pair, verdict.student_text or "")
        for pair, verdict in judged
        if verdict.verdict in HAD_RIGHT and pair.pair_id not in trained
    ]
    return sample(known, settings.forgotten_pairs, f"forgotten {seed}", lambda each: each.pair.pair_id)


def ask_again(
    artifact: Artifact,
    known: Sequence[PreviouslyRight],
    tasks: Mapping[str, Task],
    after: CachedModel | None,
    *,
    settings: IdentifySettings,
    progress: Progress,
) -> None:
    """Asks the levelled student again what it had right before, as in identify.

    Args:
        artifact: Gets its answers.
        known: The pairs from `previously_right`.
        tasks: The tasks of the pairs, by name.
        after: The levelled student. None: the student was not trained, and says what it said.
        settings: How identify asks.
        progress: Called after every batch.
    """
    if artifact.finished:
        return
    if after is None:
        answers = [Answer(item_id=each.pair.pair_id, text=each.said) for each in known]
    else:
        asked = answers_to(
            after,
            [each.pair for each in known],
            tasks,
            settings=settings,
            on_progress=lambda done, total: progress("evaluate forgotten", done, total),
        )
        answers = list(asked.values())
    artifact.stream(AFTER, Answer).write(answers)
    artifact.finish({"pairs asked again": len(known)})


def pair_regressions(
    artifact: Artifact, pairs: Sequence[Pair], tasks: Mapping[str, Task], *, settings: IdentifySettings
) -> RegressionsByTask:
    """How many of the pairs of `ask_again` the student has wrong now, judged as in identify."""
    judges = {name: judge_of(task, settings) for name, task in tasks.items()}
    after = {answer.item_id: answer.text for answer in artifact.stream(AFTER, Answer)}
    return regressions_by_task(
        Case(pair.task, pair.image_id, _lost(judges[pair.task], after[pair.pair_id], pair))
        for pair in pairs
        if pair.pair_id in after
    )


def _lost(judge: Judge, text: str, pair: Pair) -> bool:
    return judge.outcome(text, pair.answer, pair.question) is Outcome.WRONG


def regressions_by_task(cases: Iterable[Case]) -> RegressionsByTask:
    """Counts and intervals, in the order of the tasks."""
    listed = list(cases)
    tasks = dict.fromkeys(case.task for case in listed)
    return RegressionsByTask(
        tasks={task: _regressions([case for case in listed if case.task == task]) for task in tasks},
        total=_regressions(listed),
    )


def _regressions(cases: Sequence[Case]) -> Regressions:
    images = [case.image for case in cases]
    lost = share_of([case.lost for case in cases], images)
    return Regressions(had_right=lost.of, images=len(set(images)), lost=lost.count, share=lost.share, ci=lost.ci)
