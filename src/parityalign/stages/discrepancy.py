"""Discrepancy: scores both models teacher-forced on every pair's answer, and compares them.

Log-probabilities and attention are stored from one forward pass without generation, over the pair's own answer, which
is what the student will be trained on; so it works for pairs from other tools too. The two models are never in memory
together, nor is the teacher while the student trains.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from parityalign.config import DiscrepancySettings
from parityalign.core import (
    DISCREPANCY_FOLDER,
    ON_RATIONALES,
    RATIONALES,
    STUDENT,
    TEACHER,
    Answer,
    Artifact,
    Decoding,
    Judged,
    Observation,
    ObservationRef,
    Pair,
    Progress,
    Rationale,
    Task,
    VerdictKind,
    content_id,
    groups_of,
    read_index,
    write_shard,
)
from parityalign.engines import Asked, CachedModel, TwoModels
from parityalign.stages._comparing import compare_answers
from parityalign.stages._measures import write_pair_discrepancies
from parityalign.stages._outcomes import Outcome
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.level import choose_pairs
from parityalign.stages.parsing import read_rationale

REPLIES = "rationale_replies.jsonl"

UNREADABLE = "unreadable"
OTHER_ANSWER = "other_answer"
"""The rationale leads to another answer than the pair's."""


def _work(run: StageRun, artifact: Artifact) -> None:
    models = TwoModels(run.student, run.teacher)
    extent = _extent(run)
    settings = run.config.discrepancy.model_copy(update={"rationales": extent.rationales})
    pairs = _scored_pairs(run, extent)
    score_teacher_forced(artifact, pairs, run.tasks, models, settings=settings, progress=run.progress)


class _Extent(NamedTuple):
    """How much is compared."""

    all_pairs: bool
    """Else only the pairs that training needs."""
    rationales: bool

    def plan(self) -> dict[str, object]:
        """As settings of the artifact."""
        return {f"discrepancy.{name}": value for name, value in self._asdict().items()}


def _extent(run: StageRun) -> _Extent:
    """What is wanted; what an earlier run compared beyond that stays."""
    config = run.config
    wanted = _Extent(config.discrepancy.compares_all(config.level), config.wants_rationales)
    wider = (_Extent(True, True), _Extent(wanted.all_pairs, True), _Extent(True, wanted.rationales))
    held = (each for each in wider if run.holds(DISCREPANCY_FOLDER, each.plan(), _matters_of(run, each)))
    return next(held, wanted)


def _scored_pairs(run: StageRun, extent: _Extent) -> list[Judged]:
    kept = [each for each in run.judged if each.verdict.verdict != VerdictKind.DROPPED]
    if extent.all_pairs:
        return kept
    choice = choose_pairs(run.judged, run.config.level, run.config.seed)
    chosen = {pair.pair_id for pair in choice.pairs}
    return [each for each in kept if each.pair.pair_id in chosen]


def _matters_of(run: StageRun, extent: _Extent) -> dict[str, str]:
    """Of pairs and verdicts only the scored pairs and their verdicts matter."""
    scored = _scored_pairs(run, extent)
    digest = content_id(*(part for pair, verdict in scored for part in (pair.identity, verdict.verdict)))
    return {"pairs": digest, "verdicts": digest}


STAGE = Stage(
    "discrepancy",
    artifact=DISCREPANCY_FOLDER,
    of=("pairs", "verdicts", "teacher model", "student model", "answer prompt", "rationale prompt"),
    settings=("discrepancy.max_new_tokens",),
    derived=lambda run: _extent(run).plan(),
    parts=lambda run: _matters_of(run, _extent(run)),
    wanted=lambda config: config.wants_discrepancy,
    derives=True,
    work=_work,
    help="Score both models teacher-forced on the pairs' answers: log-probabilities, attention, rationales.",
)


def score_teacher_forced(
    artifact: Artifact,
    judged: Sequence[Judged],
    tasks: Mapping[str, Task],
    models: TwoModels,
    *,
    settings: DiscrepancySettings,
    progress: Progress,
) -> None:
    """Scores both models teacher-forced on the pairs, and writes how they differ.

    Args:
        artifact: Gets the signals, the rationales and the comparison.
        judged: The pairs with their verdicts; none was dropped.
        tasks: The tasks of the pairs, by name.
        models: They are run only on what their answer store lacks.
        settings: Whether rationales are requested, and the batch size.
        progress: Called after every batch.
    """
    if artifact.finished:
        return
    pairs = [pair for pair, _ in judged]
    answers = [_Forced(pair, _prompt(tasks[pair.task].answer_prompt, pair), pair.answer) for pair in pairs]
    teacher = _Scorer(artifact, TEACHER, models.teacher, settings, progress)
    student = _Scorer(artifact, STUDENT, models.student, settings, progress)
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
    model: CachedModel
    settings: DiscrepancySettings
    progress: Progress

    def score(self, forced: Sequence[_Forced], suffix: str = "") -> None:
        """Scores the model on each of the texts; of rationales only the mean is written."""
        name = f"{self.who}{suffix}"
        found = self.model.observe(
            [(_asked(each.pair, each.prompt), each.text) for each in forced],
            batch_size=self.settings.batch_size,
            on_progress=self._step(name.replace("_", " ")),
        )
        lines: list[ObservationRef] = []
        for number, group in enumerate(groups_of(forced, self.settings.batch_size)):
            shard = None if suffix else f"{name}-{number * self.settings.batch_size:08d}.safetensors"
            lines += self._written([each.pair.pair_id for each in group], found, shard)
        self.artifact.stream(f"{name}.jsonl", ObservationRef).write(lines)

    def _written(
        self, pair_ids: Sequence[str], found: Mapping[str, Observation | str], shard: str | None
    ) -> list[ObservationRef]:
        """The lines of the index for some pairs, whose signals are written into the shard."""
        shown: list[Observation] = []
        lines = []
        for pair_id in pair_ids:
            seen = found[pair_id]
            if isinstance(seen, str):
                lines.append(ObservationRef(pair_id=pair_id, why_not=seen))
                continue
            lines.append(
                ObservationRef(
                    pair_id=pair_id,
                    shard=shard,
                    row=len(shown),
                    tokens=len(seen.ids),
                    mean_logprob=seen.mean_logprob,
                    has_places=len(seen.places) > 0,
                )
            )
            shown.append(seen)
        if shard and shown:
            write_shard(self.artifact.path / shard, shown)
        return lines

    def write_rationales(self, pairs: Sequence[Pair], tasks: Mapping[str, Task]) -> list[Rationale]:
        """Asks the model for a rationale of each answer; keeps those that lead to the same answer."""
        replies = self.model.answer(
            [_asked(pair, _prompt(tasks[pair.task].rationale_prompt, pair)) for pair in pairs],
            decoding=Decoding(self.settings.max_new_tokens),
            batch_size=self.settings.batch_size,
            on_progress=self._step("rationales"),
        )
        self.artifact.stream(REPLIES, Answer).write(replies.values())
        read = [_rationale(pair, replies[pair.pair_id]) for pair in pairs]
        self.artifact.stream(RATIONALES, Rationale).write(read)
        return read

    def _step(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(f"discrepancy {name}", done, total)


def _asked(pair: Pair, prompt: str) -> Asked:
    return Asked(pair.pair_id, pair.image, prompt, pair.question, pair.image_id)


def _rationale(pair: Pair, reply: Answer) -> Rationale:
    if reply.not_asked:
        return Rationale(pair_id=pair.pair_id, text=None, why_not=reply.not_asked)
    found = read_rationale(reply.text)
    if found is None:
        return Rationale(pair_id=pair.pair_id, text=None, why_not=UNREADABLE)
    if compare_answers(found.answer, pair.answer, pair.question).outcome is not Outcome.RIGHT:
        return Rationale(pair_id=pair.pair_id, text=None, why_not=OTHER_ANSWER)
    return Rationale(pair_id=pair.pair_id, text=f"Explanation: {found.rationale} Answer: {pair.answer}")


def _prompt(form: str, pair: Pair) -> str:
    return form.format(question=pair.question)


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
