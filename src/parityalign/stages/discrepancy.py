"""Observe: both models are given every pair's answer, and what they show meanwhile is kept as evidence.

The teacher is asked no question again: it is given the pair's own answer, which is what the student will be trained
on, in one forward pass without generation. So pairs that were made or judged elsewhere have the same evidence. Nothing
here needs both models in memory, nor the teacher while the student trains.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from parityalign.config import EvidenceSettings, IdentifySettings
from parityalign.core import (
    EXPLANATIONS,
    PATHS,
    STUDENT,
    TEACHER,
    Answer,
    Artifact,
    Explanation,
    Judged,
    Observed,
    Observer,
    Pair,
    Progress,
    Request,
    Task,
    VerdictKind,
    read_index,
    resume_in_batches,
    write_all,
    write_shard,
)
from parityalign.engines import SPECIAL_TOKEN, Asked, Both, LoadModel, answer_all, holds_special_token
from parityalign.stages._stage import Stage, StageRun
from parityalign.stages.judging import judge_of
from parityalign.stages.parsing import read_explanation
from parityalign.stages.profile import write_profile

REPLIES = "explanation_replies.jsonl"

OPAQUE = "opaque"
"""The model shows nothing but its text."""
NOT_SHOWN = "not_shown"
"""The model's server said nothing of this answer."""
UNREADABLE = "unreadable"
OTHER_ANSWER = "other_answer"
"""The explanation leads to another answer than the pair's."""


def _work(run: StageRun, artifact: Artifact) -> None:
    models = Both(run.load_student, run.load_teacher)
    settings = run.config.evidence.model_copy(update={"explain": _explains(run)})
    observe_models(artifact, run.judged, run.tasks, models, settings=settings, progress=run.progress)


def _explains(run: StageRun) -> bool:
    # Explanations that are there stay, even if no term asks for them any more.
    return run.config.wants_explanations or run.holds("evidence", {"evidence.explain": True})


STAGE = Stage(
    "observe",
    artifact="evidence",
    of=("pairs", "verdicts", "teacher model", "student model", "answer prompt", "explain prompt"),
    settings=("evidence.max_new_tokens",),
    derived=lambda run: {"evidence.explain": _explains(run)},
    wanted=lambda config: config.wants_evidence,
    work=_work,
    help="Store what both models show of the pairs: log-probabilities, attention, the teacher's explanations.",
)


def observe_models(
    artifact: Artifact,
    judged: Sequence[Judged],
    tasks: Mapping[str, Task],
    models: Both,
    *,
    settings: EvidenceSettings,
    progress: Progress,
) -> None:
    """Keeps what both models show of every pair that was not dropped, and how they differ on it.

    Args:
        artifact: Where the observations, the explanations and the profile go.
        judged: What the teacher wrote, with the verdicts.
        tasks: The tasks of the pairs, by name.
        models: Each is loaded if it has something left to show; the teacher is dropped before the student comes.
        settings: Whether explanations are asked for.
        progress: Told of every batch.
    """
    if artifact.finished:
        return
    pairs = [pair for pair, verdict in judged if verdict.verdict != VerdictKind.DROPPED]
    answers = [_Told(pair, _prompt(tasks[pair.task].answer_prompt, pair), pair.answer) for pair in pairs]
    teacher = _Watcher(artifact, TEACHER, cache(models.teacher), settings, progress)
    teacher.watch(answers)
    paths: list[_Told] = []
    if settings.explain:
        explained = {each.pair_id: each.text for each in teacher.explain(pairs, tasks) if each.text}
        paths = [
            _Told(pair, _prompt(tasks[pair.task].explain_prompt, pair), explained[pair.pair_id])
            for pair in pairs
            if pair.pair_id in explained
        ]
        teacher.watch(paths, PATHS)
    del teacher
    student = _Watcher(artifact, STUDENT, cache(models.student), settings, progress)
    student.watch(answers)
    student.watch(paths, PATHS)
    _finish(artifact, write_profile(artifact, judged))


def explanations_of(artifact: Artifact) -> dict[str, str]:
    """The explanations that lead to their pair's answer, by pair."""
    return {each.pair_id: each.text for each in artifact.stream(EXPLANATIONS, Explanation) if each.text}


class _Told(NamedTuple):
    """A text that a model is given as if it were its own reply."""

    pair: Pair
    prompt: str
    text: str


@dataclass(frozen=True)
class _Watcher:
    """The work with one model."""

    artifact: Artifact
    who: str
    model: LoadModel
    settings: EvidenceSettings
    progress: Progress

    def watch(self, told: Sequence[_Told], suffix: str = "") -> None:
        """Observes the model with each of the texts; of explanations only the mean is kept."""
        name = f"{self.who}{suffix}"
        place = {each.pair.pair_id: number for number, each in enumerate(told)}

        def work(batch: Sequence[_Told]) -> list[Observed]:
            # Named by its place among all, so that a run that goes on with other batches overwrites none that counts.
            shard = f"{name}-{place[batch[0].pair.pair_id]:08d}.safetensors"
            return self._observed(batch, None if suffix else shard)

        resume_in_batches(
            self.artifact.stream(f"{name}.jsonl", Observed),
            told,
            item_id=lambda each: each.pair.pair_id,
            record_id=lambda line: line.pair_id,
            batch_size=self.settings.batch_size,
            work=work,
            on_progress=self._step(name.replace("_", " ")),
        )

    def _observed(self, batch: Sequence[_Told], shard: str | None) -> list[Observed]:
        model = self.model()
        if not isinstance(model, Observer):
            return [Observed(pair_id=each.pair.pair_id, why_not=OPAQUE) for each in batch]
        asked = [each for each in batch if not _unsafe(each, model.special_tokens)]
        shown = model.observe([(Request(each.pair.image, each.prompt), each.text) for each in asked])
        kept = [(each, seen) for each, seen in zip(asked, shown, strict=True) if seen is not None]
        lines = {each.pair.pair_id: Observed(pair_id=each.pair.pair_id, why_not=NOT_SHOWN) for each in asked}
        for row, (each, seen) in enumerate(kept):
            lines[each.pair.pair_id] = Observed(
                pair_id=each.pair.pair_id,
                shard=shard,
                row=row,
                tokens=len(seen.ids),
                mean_logprob=seen.mean_logprob,
                has_places=len(seen.places) > 0,
            )
        if shard and kept:
            write_shard(self.artifact.path / shard, [seen for _, seen in kept])
        unsafe = (Observed(pair_id=each.pair.pair_id, why_not=SPECIAL_TOKEN) for each in batch)
        return [lines.get(line.pair_id, line) for line in unsafe]

    def explain(self, pairs: Sequence[Pair], tasks: Mapping[str, Task]) -> list[Explanation]:
        """Asks the model how it gets to each answer; keeps what leads there again."""
        asked = [
            Asked(pair.pair_id, pair.image, _prompt(tasks[pair.task].explain_prompt, pair), pair.question)
            for pair in pairs
        ]
        replies = answer_all(
            self.artifact.stream(REPLIES, Answer),
            asked,
            self.model,
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=self.settings.batch_size,
            on_progress=self._step("explanations"),
        )
        judges = {name: judge_of(task, IdentifySettings()) for name, task in tasks.items()}
        read = [_explanation(pair, replies[pair.pair_id], judges[pair.task].agrees) for pair in pairs]
        write_all(self.artifact.stream(EXPLANATIONS, Explanation), read, lambda each: each.pair_id)
        return read

    def _step(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(f"observe {name}", done, total)


def _explanation(pair: Pair, reply: Answer, agrees: Callable[[str, str], bool]) -> Explanation:
    if reply.not_asked:
        return Explanation(pair_id=pair.pair_id, text=None, why_not=reply.not_asked)
    found = read_explanation(reply.text)
    if found is None:
        return Explanation(pair_id=pair.pair_id, text=None, why_not=UNREADABLE)
    if not agrees(found.answer, pair.answer):
        return Explanation(pair_id=pair.pair_id, text=None, why_not=OTHER_ANSWER)
    return Explanation(pair_id=pair.pair_id, text=f"Explanation: {found.explanation} Answer: {pair.answer}")


def _prompt(form: str, pair: Pair) -> str:
    return form.format(question=pair.question)


def _unsafe(told: _Told, special_tokens: frozenset[str]) -> bool:
    return holds_special_token(f"{told.pair.question}\n{told.text}", special_tokens)


def _finish(artifact: Artifact, profiles: Mapping[str, int]) -> None:
    """Counts what each model showed and why it showed nothing, and the measures of the profile."""
    counts: Counter[str] = Counter()
    for who in (TEACHER, STUDENT):
        for line in read_index(artifact.path, who):
            counts[f"{who} {line.why_not or 'observed'}"] += 1
            counts[f"{who} with attention"] += line.has_places
    for each in artifact.stream(EXPLANATIONS, Explanation):
        counts[f"explanation {each.why_not or 'kept'}"] += 1
    artifact.finish({key: count for key, count in counts.items() if count}, profile=dict(profiles))
