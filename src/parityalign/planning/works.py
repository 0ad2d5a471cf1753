"""The workload of a run: requests, tokens and optimiser steps of each model and stage.

Arithmetic only. Model sizes and tokens per picture come from `sizing.py`; time and memory from `costs.py`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from parityalign.config import Role, RunConfig
from parityalign.planning.sizes import PromptSize, PromptSizes
from parityalign.stages import (
    SETTLING_PROMPT_TOKENS,
    SETTLING_REPLY_TOKENS,
    ChoiceCounts,
    PlannedAmounts,
    Stage,
    choice_counts,
    filters_of,
    stages_of,
)
from parityalign.training import ALPHAS, EVALUATIONS

Prompt = Literal["annotate", "answer", "rationale"]
SCORED: tuple[Literal["teacher"], Literal["student"]] = ("teacher", "student")
"""The models that are compared teacher-forced."""
PAIR_TOKENS = 30
"""Tokens of a question and its answer as a teacher writes them."""
ANSWER_TOKENS = 5
"""Tokens of an answer in a word or a phrase, with its end token."""
RATIONALE_TOKENS = 50
"""Of a rationale in one sentence, with the answer behind it."""


class Counts(NamedTuple):
    """How much there is of one task."""

    images: int
    questions: int
    """Questions of the test split."""
    own: int = 0
    """Pairs of one's own."""
    to_answer: int = 0
    """Those of them that the teacher's answers make pairs."""


class Shares(NamedTuple):
    """What comes of a task's draws."""

    pairs: float
    """Pairs of each draw."""
    failed: float
    """Share of the pairs that the student has wrong."""
    gaps: float
    """Share of the pairs that are gaps."""

    @classmethod
    def assumed(cls, gap_rate: float) -> "Shares":
        """Every reply is a pair, and every pair that the student has wrong is a gap: with fewer the run costs less."""
        return cls(1.0, gap_rate, gap_rate)


class Workload(NamedTuple):
    """What one model does in one stage, over all tasks."""

    stage: str
    role: Role
    requests: int
    """Replies; in training, examples processed."""
    prompt_tokens: int
    reply_tokens: int
    patches: int
    """Patches in the vision tower."""
    steps: int = 0
    """Optimiser steps; 0 where nothing is trained."""
    eval_examples: int = 0
    """In training: examples that are only looked at, without learning."""
    pictures: int = 0
    """Different ones."""
    views: int = 0
    """In training: augmented views, each of which is prepared for itself."""
    epochs: float = 1.0
    """In training: times that an example comes."""
    passes: int = 1
    """In training: times that an example goes through the student in a step."""
    shared_prefixes: int = 0
    """Requests whose image and prompt another one has too: a model in this process reads them once."""
    prompt: Prompt = "answer"
    """What is asked; a field of `Prompts`, `PromptSizes` and `Throughput`."""
    given: bool = False
    """Whether replies are given and scored teacher-forced, not generated."""
    of_tests: bool = False
    """Whether it is asked about the test splits."""

    @property
    def tokens(self) -> int:
        """Tokens of prompts and replies."""
        return self.prompt_tokens + self.reply_tokens


def workloads(
    config: RunConfig,
    amounts: Mapping[str, Counts],
    prompt_sizes: Mapping[Role, Mapping[str, PromptSizes]],
    shares: Mapping[str, Shares],
) -> list[Workload]:
    """What each model has to do, stage by stage in the order of the run.

    Args:
        config: The run.
        amounts: Images and questions of each task.
        prompt_sizes: For each model and task, what it makes of a picture with a prompt.
        shares: What comes of each task's draws.
    """
    run = _Workloads(config, amounts, prompt_sizes, shares)
    own: dict[str, Callable[[], Iterable[Workload]]] = {
        "annotate": run.annotate,
        "identify": run.identify,
        "discrepancy": run.discrepancy,
        "level": run.level,
        "evaluate": run.evaluate,
        "forgotten": run.forgotten,
    }
    stages = stages_of(config)
    return [work for stage in stages for work in (own[stage.name]() if stage.name in own else run.added(stage))]


def rationale_tokens(config: RunConfig) -> int:
    """Tokens of a rationale with its answer, within the run's limit."""
    return min(RATIONALE_TOKENS, config.discrepancy.max_new_tokens)


@dataclass(frozen=True)
class _Workloads:
    """What is known of a run; each stage has a method."""

    config: RunConfig
    amounts: Mapping[str, Counts]
    prompt_sizes: Mapping[Role, Mapping[str, PromptSizes]]
    shares: Mapping[str, Shares]

    @property
    def images(self) -> int:
        """Of all tasks, counting each own pair as one about an image of its own."""
        return sum(each.images + each.own for each in self.amounts.values())

    @property
    def drawn(self) -> dict[str, int]:
        """Ordinary draws, by task."""
        return {task: each.images * self.config.annotate.pairs_per_image for task, each in self.amounts.items()}

    @property
    def pairs(self) -> dict[str, int]:
        """By task, one's own too."""
        return {
            task: _part(count, self.shares[task].pairs) + self.amounts[task].own for task, count in self.drawn.items()
        }

    @property
    def failed(self) -> dict[str, int]:
        """Pairs that the student has wrong."""
        return {task: _part(count, self.shares[task].failed) for task, count in self.pairs.items()}

    @property
    def gaps(self) -> int:
        """Pairs that the teacher has right besides."""
        return sum(_part(count, self.shares[task].gaps) for task, count in self.pairs.items())

    def annotate(self) -> Iterator[Workload]:
        reply = min(PAIR_TOKENS, self.config.annotate.max_new_tokens)
        draws = {task: count + self.config.annotate.most_further(count) for task, count in self.drawn.items()}
        asked = self._asked("annotate", "teacher", draws, reply, "annotate")
        yield asked._replace(shared_prefixes=sum(map(self._shared_draws, self.drawn)))
        of_own = {task: each.to_answer for task, each in self.amounts.items()}
        if any(of_own.values()):
            yield self._asked("annotate own questions", "teacher", of_own, self._judged)

    def _shared_draws(self, task: str) -> int:
        """Draws whose prompt an earlier one on the image has: all but the first, but for those of other kinds."""
        images, per_image = self.amounts[task].images, self.config.annotate.pairs_per_image
        kinds = len(self.config.tasks[task].kinds or ()) or 1
        prompts = kinds * (1 - (1 - 1 / kinds) ** per_image)
        return round(images * (per_image - prompts))

    def identify(self) -> Iterator[Workload]:
        yield self._asked("identify", "student", self.pairs, self._judged)
        again = {task: self._again(task, count) for task, count in self.pairs.items()}
        yield self._asked("identify", "teacher", again, self._judged)
        if self.config.identify.settle:
            yield self._settled(sum(self.pairs.values()) + sum(again.values()))
        for name, each, setting in filters_of(self.config):
            questions, scores, of_second = each.cost(setting)
            if of_second:
                yield self._asked(f"verify {name}", "second_teacher", self._failed_times(of_second), self._judged)
            if questions:
                yield self._asked(f"verify {name}", "teacher", self._failed_times(questions), self._judged)
            if scores and self.config.shows("teacher"):
                scored = self._asked(f"verify {name}", "teacher", self._failed_times(scores), ANSWER_TOKENS)
                yield scored._replace(given=True)

    def _again(self, task: str, pairs: int) -> int:
        """How many of a task's pairs the teacher is asked; those that its own answers made it is not asked again."""
        share = 1.0 if self.config.identify.ask_teacher == "all" else self.shares[task].failed
        return _part(pairs - self.amounts[task].to_answer, share)

    def _settled(self, answers: int) -> Workload:
        """Questions without pictures, one at most about each answer."""
        reply = SETTLING_REPLY_TOKENS + self.config.loading.teacher.thinking_tokens
        return Workload(
            "identify settling, at most",
            "teacher",
            requests=answers,
            prompt_tokens=answers * SETTLING_PROMPT_TOKENS,
            reply_tokens=answers * reply,
            patches=0,
        )

    def discrepancy(self) -> Iterator[Workload]:
        """Rationales are written; then both models are scored on the answers, and on the rationales."""
        rationales, reply = self.config.wants_rationales, rationale_tokens(self.config)
        if not self.config.wants_discrepancy:
            return
        if rationales:
            yield self._asked("discrepancy rationales", "teacher", self.pairs, reply, "rationale")
        for role in SCORED:
            if not self.config.shows(role):  # gives only text
                continue
            yield self._asked("discrepancy", role, self.pairs, ANSWER_TOKENS)._replace(given=True)
            if rationales:
                yield self._asked("discrepancy on rationales", role, self.pairs, reply, "rationale")._replace(
                    given=True
                )

    def level(self) -> Iterator[Workload]:
        """Training, and the held-out pairs that the new student is asked.

        Of training, `requests` counts the examples trained on, `eval_examples` those that the held-out loss is
        measured on.

        In a step an example takes one forward pass with its answer, one more for an augmented view of its picture if
        a term needs that, and one more with its rationale if a term needs that.
        """
        level, picked = self.config.level, self._choice()
        steps = level.steps(picked.training)
        examples = steps * level.batch_size if level.max_steps else level.decided.epochs * picked.training
        views, rationales = 1 + level.needs_views, level.needs_rationales
        looks = 1 + EVALUATIONS + level.interpolate * len(ALPHAS)

        def mean(number: Callable[[PromptSize], float]) -> float:
            each = {
                task: views * number(sizes.answer) + rationales * number(sizes.rationale)
                for task, sizes in self.prompt_sizes["student"].items()
            }
            return sum(count * each[task] for task, count in self.pairs.items()) / max(1, sum(self.pairs.values()))

        yield Workload(
            stage="level",
            role="student",
            requests=examples,
            prompt_tokens=round(examples * mean(lambda seen: seen.tokens)),
            reply_tokens=examples * (views * ANSWER_TOKENS + rationales * rationale_tokens(self.config)),
            patches=round(examples * mean(lambda seen: seen.patches)),
            steps=steps,
            eval_examples=looks * picked.held_out if steps else 0,
            pictures=min(self.images, picked.training) + min(self.images, picked.held_out) if steps else 0,
            views=examples * level.needs_views,
            epochs=examples / max(1, picked.training),
            passes=views + rationales,
        )
        if steps:
            yield self._asked("level held-out pairs", "student", self._shared_out(picked.held_out), self._judged)

    def evaluate(self) -> Iterator[Workload]:
        questions = {task: each.questions for task, each in self.amounts.items()}
        reply = min(ANSWER_TOKENS, self.config.evaluate.max_new_tokens)
        asked = [
            self._asked("evaluate before", "student", questions, reply),
            self._asked("evaluate after", "student", questions, reply),
            self._asked("evaluate", "teacher", questions, reply),
        ]
        yield from (each._replace(pictures=each.requests, of_tests=True) for each in asked)

    def forgotten(self) -> Iterator[Workload]:
        yield self._asked("evaluate forgotten", "student", self._previously_right(), self._judged)

    def added(self, stage: Stage) -> Iterator[Workload]:
        """What a stage that is not known here says that it will ask."""
        amounts = {
            task: PlannedAmounts(each.images, self.pairs[task], self.failed[task], each.questions)
            for task, each in self.amounts.items()
        }
        for asked in stage.planned(self.config, amounts) if stage.planned else ():
            yield self._asked(stage.name, asked.role, asked.requests, asked.reply_tokens)

    @property
    def _judged(self) -> int:
        return min(ANSWER_TOKENS, self.config.identify.max_new_tokens)

    def _asked(
        self, stage: str, role: Role, counts: Mapping[str, int], reply: int, prompt: Prompt = "answer"
    ) -> Workload:
        seen: dict[str, PromptSize] = {task: getattr(sizes, prompt) for task, sizes in self.prompt_sizes[role].items()}
        requests = sum(counts.values())
        thoughts: int = getattr(self.config.loading, role).thinking_tokens
        return Workload(
            stage,
            role,
            requests=requests,
            prompt_tokens=round(sum(count * seen[task].tokens for task, count in counts.items())),
            reply_tokens=requests * (thoughts + reply),
            patches=round(sum(count * seen[task].patches for task, count in counts.items())),
            pictures=min(self.images, requests),
            prompt=prompt,
        )

    def _failed_times(self, number: int) -> dict[str, int]:
        return {task: count * number for task, count in self.failed.items()}

    def _choice(self) -> ChoiceCounts:
        return choice_counts(sum(self.pairs.values()), self.gaps, self.config.level)

    def _previously_right(self) -> dict[str, int]:
        """Pairs of each task that the student had right, is not trained on and is asked again after levelling."""
        known = self._choice().known_untrained if any(self.failed.values()) else 0
        return self._shared_out(min(self.config.evaluate.forgotten_pairs, known))

    def _shared_out(self, pairs: int) -> dict[str, int]:
        """So many pairs by task, as all pairs are spread over the tasks."""
        every = sum(self.pairs.values())
        return {task: math.ceil(pairs * count / max(1, every)) for task, count in self.pairs.items()}


def _part(count: int, share: float) -> int:
    """Rounded up; a share that was counted gives that count again."""
    return math.ceil(round(count * share, 6))
