"""The workload of a run: requests, tokens and optimiser steps of each model and stage.

Arithmetic only. Model sizes and tokens per picture come from `sizing.py`; time and memory from `costs.py`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from parityalign.config import LevelSettings, RunConfig, backend_of
from parityalign.planning.sizes import Reading, Seen
from parityalign.stages import PlannedAmounts, Stage, stages_of

Role = Literal["teacher", "student"]
Prompt = Literal["annotate", "answer", "rationale"]
ROLES: tuple[Role, Role] = ("teacher", "student")
PAIR_TOKENS = 30
"""Tokens of a question and its answer as a teacher writes them."""
ANSWER_TOKENS = 5
"""Tokens of an answer in a word or a phrase, with its end token."""
RATIONALE_TOKENS = 50
"""Tokens of a rationale in one sentence, followed by the answer."""
EVALUATIONS = 8
"""Evaluations of the held-out pairs in a training; the same number as in `training/trainer.py`."""


class Amount(NamedTuple):
    """Counts of one task."""

    images: int
    questions: int
    """Questions of the test split."""


class Work(NamedTuple):
    """The workload of one model in one stage, over all tasks."""

    stage: str
    role: Role
    requests: int
    """Replies; in training, examples processed."""
    prompt_tokens: int
    reply_tokens: int
    patches: int
    """Patches in the vision tower."""
    steps: int = 0
    """Optimiser steps; 0 without training."""
    looked: int = 0
    """In training: examples of held-out evaluations."""
    passes: int = 1
    """In training: forward passes per example in a step."""
    again: int = 0
    """Requests that repeat an image and prompt: a local model processes those once."""
    prompt: Prompt = "answer"
    """The kind of request; a field of `Prompts`, `Reading` and `Pace`."""
    given: bool = False
    """Whether replies are given and scored teacher-forced, not generated."""

    @property
    def tokens(self) -> int:
        """Tokens of prompts and replies."""
        return self.prompt_tokens + self.reply_tokens


class Chosen(NamedTuple):
    """Counts of pairs for levelling."""

    training: int
    held_out: int
    replayed: int
    """Replayed pairs in both: those that the student had right."""


def works(
    config: RunConfig,
    amounts: Mapping[str, Amount],
    readings: Mapping[Role, Mapping[str, Reading]],
    *,
    failures: float,
) -> list[Work]:
    """The workload of each model, stage by stage in the order of the run.

    Args:
        config: The run.
        amounts: Images and questions of each task.
        readings: For each model and task, the token counts of a picture with a prompt.
        failures: Share of the pairs that the student has wrong. All of them are assumed to be gaps: fewer gaps make
            the run cheaper.
    """
    run = _Run(config, amounts, readings, failures)
    own: dict[str, Callable[[], Iterable[Work]]] = {
        "annotate": lambda: [run.annotate()],
        "identify": run.identify,
        "discrepancy": run.discrepancy,
        "level": lambda: [run.level()],
        "evaluate": run.evaluate,
        "forgotten": run.forgotten,
    }
    stages = stages_of(config)
    return [work for stage in stages for work in (own[stage.name]() if stage.name in own else run.added(stage))]


def chosen(pairs: int, gaps: int, level: LevelSettings) -> Chosen:
    """Numbers of training and held-out pairs; see `stages/level.py`, which splits by image."""
    replay = min(round(gaps * level.replay / (1 - level.replay)), pairs - gaps)
    taken = pairs if level.select == "all" else gaps + replay
    held_out = round(taken * level.held_out)
    return Chosen(taken - held_out, held_out, replay if level.select == "gaps" else 0)


def previously_right(pairs: int, gaps: int, level: LevelSettings) -> int:
    """Number of pairs that the student had right and is not trained on; see `stages/forgotten.py`."""
    right, found = pairs - gaps, chosen(pairs, gaps, level)
    if level.select == "gaps":
        return right - round(found.replayed * (1 - level.held_out))
    return round(right * (1 - found.training / pairs))


def steps_of(training: int, level: LevelSettings) -> int:
    """Optimiser steps for this number of training pairs, without early stopping."""
    return level.max_steps or level.epochs * math.ceil(training / level.batch_size)


def rationale_tokens(config: RunConfig) -> int:
    """Tokens of a rationale with its answer, within the run's limit."""
    return min(RATIONALE_TOKENS, config.discrepancy.max_new_tokens)


@dataclass(frozen=True)
class _Run:
    """The workload of a run; one method per stage."""

    config: RunConfig
    amounts: Mapping[str, Amount]
    readings: Mapping[Role, Mapping[str, Reading]]
    failures: float

    @property
    def pairs(self) -> dict[str, int]:
        """By task."""
        return {task: each.images * self.config.annotate.pairs_per_image for task, each in self.amounts.items()}

    @property
    def failed(self) -> dict[str, int]:
        """Pairs that the student has wrong."""
        return {task: math.ceil(count * self.failures) for task, count in self.pairs.items()}

    def annotate(self) -> Work:
        pairs, images = sum(self.pairs.values()), sum(each.images for each in self.amounts.values())
        reply = min(PAIR_TOKENS, self.config.annotate.max_new_tokens)
        return self._asked("annotate", "teacher", self.pairs, reply, "annotate")._replace(again=pairs - images)

    def identify(self) -> Iterator[Work]:
        yield self._asked("identify", "student", self.pairs, self._judged)
        again = self.pairs if self.config.identify.ask_teacher == "all" else self.failed
        yield self._asked("identify", "teacher", again, self._judged)

    def discrepancy(self) -> Iterator[Work]:
        """Rationales are written; then both models are scored on the answers, and on the rationales."""
        rationales, reply = self.config.wants_rationales, rationale_tokens(self.config)
        if not self.config.wants_discrepancy:
            return
        if rationales:
            yield self._asked("discrepancy rationales", "teacher", self.pairs, reply, "rationale")
        for role in ROLES:
            if not backend_of(getattr(self.config, role)).shows:  # gives only text
                continue
            yield self._asked("discrepancy", role, self.pairs, ANSWER_TOKENS)._replace(given=True)
            if rationales:
                yield self._asked("discrepancy on rationales", role, self.pairs, reply, "rationale")._replace(
                    given=True
                )

    def level(self) -> Work:
        """Training: `requests` are examples processed, not counting held-out evaluations.

        In a step an example takes one forward pass with its answer, one more for an augmented view of its picture if
        `consistency` is a term, and one more with its rationale if a term needs that.
        """
        level, picked = self.config.level, self._chosen()
        steps = steps_of(picked.training, level)
        examples = steps * level.batch_size if level.max_steps else level.epochs * picked.training
        views, rationales = 1 + level.needs_views, level.needs_rationales

        def mean(number: Callable[[Seen], float]) -> float:
            each = {
                task: views * number(reading.answer) + rationales * number(reading.rationale)
                for task, reading in self.readings["student"].items()
            }
            return sum(count * each[task] for task, count in self.pairs.items()) / max(1, sum(self.pairs.values()))

        return Work(
            stage="level",
            role="student",
            requests=examples,
            prompt_tokens=round(examples * mean(lambda seen: seen.tokens)),
            reply_tokens=examples * (views * ANSWER_TOKENS + rationales * rationale_tokens(self.config)),
            patches=round(examples * mean(lambda seen: seen.patches)),
            steps=steps,
            looked=(EVALUATIONS + 1) * picked.held_out if steps else 0,
            passes=views + rationales,
        )

    def evaluate(self) -> Iterator[Work]:
        questions = {task: each.questions for task, each in self.amounts.items()}
        reply = min(ANSWER_TOKENS, self.config.evaluate.max_new_tokens)
        yield self._asked("evaluate before", "student", questions, reply)
        yield self._asked("evaluate after", "student", questions, reply)
        yield self._asked("evaluate", "teacher", questions, reply)

    def forgotten(self) -> Iterator[Work]:
        yield self._asked("evaluate forgotten", "student", self._previously_right(), self._judged)

    def added(self, stage: Stage) -> Iterator[Work]:
        """The requests of another package's stage, from its own estimate."""
        amounts = {
            task: PlannedAmounts(each.images, self.pairs[task], self.failed[task], each.questions)
            for task, each in self.amounts.items()
        }
        for asked in stage.planned(self.config, amounts) if stage.planned else ():
            yield self._asked(stage.name, asked.role, asked.requests, asked.reply_tokens)

    @property
    def _judged(self) -> int:
        return min(ANSWER_TOKENS, self.config.identify.max_new_tokens)

    def _asked(self, stage: str, role: Role, counts: Mapping[str, int], reply: int, prompt: Prompt = "answer") -> Work:
        seen: dict[str, Seen] = {task: getattr(reading, prompt) for task, reading in self.readings[role].items()}
        requests = sum(counts.values())
        return Work(
            stage,
            role,
            requests=requests,
            prompt_tokens=round(sum(count * seen[task].tokens for task, count in counts.items())),
            reply_tokens=requests * reply,
            patches=round(sum(count * seen[task].patches for task, count in counts.items())),
            prompt=prompt,
        )

    def _chosen(self) -> Chosen:
        return chosen(sum(self.pairs.values()), sum(self.failed.values()), self.config.level)

    def _previously_right(self) -> dict[str, int]:
        """Pairs of each task that the student had right, is not trained on and is asked again after levelling."""
        every, gaps = sum(self.pairs.values()), sum(self.failed.values())
        known = previously_right(every, gaps, self.config.level) if gaps else 0
        asked = min(self.config.evaluate.forgotten_pairs, known)
        return {task: math.ceil(asked * count / max(1, every)) for task, count in self.pairs.items()}
