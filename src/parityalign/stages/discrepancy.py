"""Discrepancy: scores both models teacher-forced on every pair's answer, and compares them.

Log-probabilities and attention are stored from one forward pass without generation, over the pair's own answer, which
is what the student will be trained on; so it works for pairs from other tools too. The two models are never in memory
together, nor is the teacher while the student trains.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from parityalign.config import DiscrepancySettings, IdentifySettings
from parityalign.core import (
    DISCREPANCY_FOLDER,
    ON_RATIONALES,
    RATIONALES,
    STUDENT,
    TEACHER,
    Answer,
    Artifact,
    Judged,
    ObservationRef,
    Observer,
    Pair,
    Progress,
    Rationale,
    Request,
    Task,
    VerdictKind,
    read_index,
    resume_in_batches,
    write_all,
    write_shard,
)
from parityalign.engines import SPECIAL_TOKEN, Asked, LoadModel, ModelLoaders, answer_all, holds_special_token
from parityalign.stages._comparing import Outcome
from parityalign.stages._measures import write_pair_discrepancies
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.judging import Judge, judge_of
from parityalign.stages.parsing import read_rationale

REPLIES = "rationale_replies.jsonl"

OPAQUE = "opaque"
"""The model gives only text."""
NOT_SHOWN = "not_shown"
"""The model gave no scores for this answer."""
UNREADABLE = "unreadable"
OTHER_ANSWER = "other_answer"
"""The rationale leads to another answer than the pair's."""


def _work(run: StageRun, artifact: Artifact) -> None:
    models = ModelLoaders(run.load_student, run.load_teacher)
    settings = run.config.discrepancy.model_copy(update={"rationales": _with_rationales(run)})
    score_teacher_forced(artifact, run.judged, run.tasks, models, settings=settings, progress=run.progress)


def _with_rationales(run: StageRun) -> bool:
    # Existing rationales stay, even if no term needs them any more.
    return run.config.wants_rationales or run.holds(DISCREPANCY_FOLDER, {"discrepancy.rationales": True})


STAGE = Stage(
    "discrepancy",
    artifact=DISCREPANCY_FOLDER,
    of=("pairs", "verdicts", "teacher model", "student model", "answer prompt", "rationale prompt"),
    settings=("discrepancy.max_new_tokens",),
    derived=lambda run: {"discrepancy.rationales": _with_rationales(run)},
    wanted=lambda config: config.wants_discrepancy,
    work=_work,
    help="Score both models teacher-forced on the pairs' answers: log-probabilities, attention, rationales.",
)


def score_teacher_forced(
    artifact: Artifact,
    judged: Sequence[Judged],
    tasks: Mapping[str, Task],
    models: ModelLoaders,
    *,
    settings: DiscrepancySettings,
    progress: Progress,
) -> None:
    """Scores both models teacher-forced on every pair that was not dropped, and writes how they differ.

    Args:
        artifact: Gets the signals, the rationales and the comparison.
        judged: What the teacher wrote, with the verdicts.
        tasks: The tasks of the pairs, by name.
        models: Each is loaded only if something is left to score; the teacher is freed before the student is loaded.
        settings: Whether rationales are requested, and the batch size.
        progress: Called after every batch.
    """
    if artifact.finished:
        return
    pairs = [pair for pair, verdict in judged if verdict.verdict != VerdictKind.DROPPED]
    answers = [_Forced(pair, _prompt(tasks[pair.task].answer_prompt, pair), pair.answer) for pair in pairs]
    teacher = _Scorer(artifact, TEACHER, cache(models.teacher), settings, progress)
    teacher.score(answers)
    rationales: list[_Forced] = []
    if settings.rationales:
        written = {each.pair_id: each.text for each in teacher.write_rationales(pairs, tasks) if each.text}
        rationales = [
            _Forced(pair, _prompt(tasks[pair.task].rationale_prompt, pair), written[pair.pair_id])
            for pair in pairs
            if pair.pair_id in written
        ]
        teacher.score(rationales, ON_RATIONALES)
    del teacher
    student = _Scorer(artifact, STUDENT, cache(models.student), settings, progress)
    student.score(answers)
    student.score(rationales, ON_RATIONALES)
    _finish(artifact, write_pair_discrepancies(artifact, judged))


def rationales_of(artifact: Artifact) -> dict[str, str]:
    """The rationales that lead to their pair's answer, by pair."""
    return {each.pair_id: each.text for each in artifact.stream(RATIONALES, Rationale) if each.text}


class _Forced(NamedTuple):
    """A text that a model is scored on as if it were its own reply."""

    pair: Pair
    prompt: str
    text: str


@dataclass(frozen=True)
class _Scorer:
    """The work with one model."""

    artifact: Artifact
    who: str
    model: LoadModel
    settings: DiscrepancySettings
    progress: Progress

    def score(self, forced: Sequence[_Forced], suffix: str = "") -> None:
        """Scores the model on each of the texts; of rationales only the mean is stored."""
        name = f"{self.who}{suffix}"
        place = {each.pair.pair_id: number for number, each in enumerate(forced)}

        def work(batch: Sequence[_Forced]) -> list[ObservationRef]:
            # Named by its index among all, so that a resumed run with other batches overwrites no valid shard.
            shard = f"{name}-{place[batch[0].pair.pair_id]:08d}.safetensors"
            return self._scored(batch, None if suffix else shard)

        resume_in_batches(
            self.artifact.stream(f"{name}.jsonl", ObservationRef),
            forced,
            item_id=lambda each: each.pair.pair_id,
            record_id=lambda line: line.pair_id,
            batch_size=self.settings.batch_size,
            work=work,
            on_progress=self._step(name.replace("_", " ")),
        )

    def _scored(self, batch: Sequence[_Forced], shard: str | None) -> list[ObservationRef]:
        model = self.model()
        if not isinstance(model, Observer):
            return [ObservationRef(pair_id=each.pair.pair_id, why_not=OPAQUE) for each in batch]
        asked = [each for each in batch if not _unsafe(each, model.special_tokens)]
        shown = model.observe([(Request(each.pair.image, each.prompt), each.text) for each in asked])
        kept = [(each, seen) for each, seen in zip(asked, shown, strict=True) if seen is not None]
        lines = {each.pair.pair_id: ObservationRef(pair_id=each.pair.pair_id, why_not=NOT_SHOWN) for each in asked}
        for row, (each, seen) in enumerate(kept):
            lines[each.pair.pair_id] = ObservationRef(
                pair_id=each.pair.pair_id,
                shard=shard,
                row=row,
                tokens=len(seen.ids),
                mean_logprob=seen.mean_logprob,
                has_places=len(seen.places) > 0,
            )
        if shard and kept:
            write_shard(self.artifact.path / shard, [seen for _, seen in kept])
        unsafe = (ObservationRef(pair_id=each.pair.pair_id, why_not=SPECIAL_TOKEN) for each in batch)
        return [lines.get(line.pair_id, line) for line in unsafe]

    def write_rationales(self, pairs: Sequence[Pair], tasks: Mapping[str, Task]) -> list[Rationale]:
        """Asks the model for a rationale of each answer; keeps those that lead to the same answer."""
        asked = [
            Asked(pair.pair_id, pair.image, _prompt(tasks[pair.task].rationale_prompt, pair), pair.question)
            for pair in pairs
        ]
        replies = answer_all(
            self.artifact.stream(REPLIES, Answer),
            asked,
            self.model,
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=self.settings.batch_size,
            on_progress=self._step("rationales"),
        )
        judges = {name: judge_of(task, IdentifySettings()) for name, task in tasks.items()}
        read = [_rationale(pair, replies[pair.pair_id], judges[pair.task]) for pair in pairs]
        write_all(self.artifact.stream(RATIONALES, Rationale), read, lambda each: each.pair_id)
        return read

    def _step(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(f"discrepancy {name}", done, total)


def _rationale(pair: Pair, reply: Answer, judge: Judge) -> Rationale:
    if reply.not_asked:
        return Rationale(pair_id=pair.pair_id, text=None, why_not=reply.not_asked)
    found = read_rationale(reply.text)
    if found is None:
        return Rationale(pair_id=pair.pair_id, text=None, why_not=UNREADABLE)
    if judge.outcome(found.answer, pair.answer, pair.question) is not Outcome.RIGHT:
        return Rationale(pair_id=pair.pair_id, text=None, why_not=OTHER_ANSWER)
    return Rationale(pair_id=pair.pair_id, text=f"Explanation: {found.rationale} Answer: {pair.answer}")


def _prompt(form: str, pair: Pair) -> str:
    return form.format(question=pair.question)


def _unsafe(forced: _Forced, special_tokens: frozenset[str]) -> bool:
    return holds_special_token(f"{forced.pair.question}\n{forced.text}", special_tokens)


def _finish(artifact: Artifact, measures: Mapping[str, int]) -> None:
    """Counts of scored pairs by model, of reasons why not, and of the values of each measure."""
    counts: Counter[str] = Counter()
    for who in (TEACHER, STUDENT):
        for line in read_index(artifact.path, who):
            counts[f"{who} {line.why_not or 'scored'}"] += 1
            counts[f"{who} with attention"] += line.has_places
    for each in artifact.stream(RATIONALES, Rationale):
        counts[f"rationale {each.why_not or 'kept'}"] += 1
    artifact.finish({key: count for key, count in counts.items() if count}, measures=dict(measures))
