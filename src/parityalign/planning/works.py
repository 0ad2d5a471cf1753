"""What a run will ask of its models: requests, tokens and optimiser steps of each stage, before anything is paid for.

Arithmetic only. How large the models are and what they make of pictures comes from `sizing.py`, what it takes in time
and memory from `costs.py`.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from parityalign.config import RunConfig
from parityalign.planning.sizes import Reading, Seen
from parityalign.tuning import LevelSettings

Role = Literal["teacher", "student"]
PAIR_TOKENS = 30
"""Of a question and its answer as a teacher writes them."""
ANSWER_TOKENS = 5
"""Of an answer in a word or a phrase, with its end."""
LOOKS = 8
"""Times that the held-out pairs are looked at in a training; `training/trainer.py` has the same number."""


class Amount(NamedTuple):
    """How much there is of one task."""

    images: int
    questions: int
    """Of the test split."""


class Work(NamedTuple):
    """What one model does in one stage, over all tasks."""

    stage: str
    role: Role
    requests: int
    """Replies, or in training examples gone through."""
    prompt_tokens: int
    reply_tokens: int
    patches: int
    """That go through the vision tower."""
    steps: int = 0
    """Optimiser steps; 0 where nothing is trained."""
    looked: int = 0
    """In training: examples that are only looked at, without learning."""
    again: int = 0
    """Requests whose image and prompt another one has too: a model in this process reads them once."""

    @property
    def tokens(self) -> int:
        """Of prompts and replies."""
        return self.prompt_tokens + self.reply_tokens


class Chosen(NamedTuple):
    """How many pairs levelling takes."""

    training: int
    held_out: int


def works(
    config: RunConfig,
    amounts: Mapping[str, Amount],
    readings: Mapping[Role, Mapping[str, Reading]],
    *,
    failures: float,
) -> list[Work]:
    """What each model has to do, stage by stage in the order of the run.

    Args:
        config: The run.
        amounts: Images and questions of each task.
        readings: For each model and task, what it makes of a picture with a prompt.
        failures: Share of the pairs that the student has wrong. All of them are taken to be gaps: with fewer of them
            the run costs less.
    """
    pairs = {task: amount.images * config.annotate.pairs_per_image for task, amount in amounts.items()}
    failed = {task: math.ceil(count * failures) for task, count in pairs.items()}
    again = pairs if config.identify.ask_teacher == "all" else failed
    questions = {task: amount.questions for task, amount in amounts.items()}
    writing, judging = config.annotate.max_new_tokens, config.identify.max_new_tokens

    def asked(stage: str, role: Role, counts: Mapping[str, int], reply: int) -> Work:
        seen = {task: each.annotate if stage == "annotate" else each.answer for task, each in readings[role].items()}
        again = sum(pairs.values()) - sum(amount.images for amount in amounts.values()) if stage == "annotate" else 0
        return _asked(Work(stage, role, 0, 0, 0, 0, again=again), counts, seen, reply)

    answer = min(ANSWER_TOKENS, config.evaluate.max_new_tokens)
    return [
        asked("annotate", "teacher", pairs, min(PAIR_TOKENS, writing)),
        asked("identify", "student", pairs, min(ANSWER_TOKENS, judging)),
        asked("identify", "teacher", again, min(ANSWER_TOKENS, judging)),
        _levelling(config.level, pairs, failed, readings["student"]),
        asked("evaluate before", "student", questions, answer),
        asked("evaluate after", "student", questions, answer),
        asked("evaluate", "teacher", questions, answer),
    ]


def chosen(pairs: int, gaps: int, level: LevelSettings) -> Chosen:
    """How many pairs levelling trains on and how many it holds out; see `stages/level.py`, whose split is by image."""
    replay = min(round(gaps * level.replay / (1 - level.replay)), pairs - gaps)
    taken = pairs if level.select == "all" else gaps + replay
    held_out = round(taken * level.held_out)
    return Chosen(taken - held_out, held_out)


def steps_of(training: int, level: LevelSettings) -> int:
    """Optimiser steps for so many training pairs, unless training stops early."""
    return level.max_steps or level.epochs * math.ceil(training / level.batch_size)


def _asked(start: Work, counts: Mapping[str, int], seen: Mapping[str, Seen], reply: int) -> Work:
    requests = sum(counts.values())
    return start._replace(
        requests=requests,
        prompt_tokens=round(sum(count * seen[task].tokens for task, count in counts.items())),
        reply_tokens=requests * reply,
        patches=round(sum(count * seen[task].patches for task, count in counts.items())),
    )


def _levelling(
    level: LevelSettings, pairs: Mapping[str, int], failed: Mapping[str, int], readings: Mapping[str, Reading]
) -> Work:
    """Training: `requests` are examples gone through, those that are only looked at for early stopping apart."""
    all_pairs, picked = sum(pairs.values()), chosen(sum(pairs.values()), sum(failed.values()), level)
    steps = steps_of(picked.training, level)
    examples = steps * level.batch_size if level.max_steps else level.epochs * picked.training
    looked = (LOOKS + 1) * picked.held_out if steps else 0

    def mean(values: Mapping[str, float]) -> float:
        return sum(count * values[task] for task, count in pairs.items()) / max(1, all_pairs)

    tokens = mean({task: reading.answer.tokens for task, reading in readings.items()})
    patches = mean({task: reading.answer.patches for task, reading in readings.items()})
    return Work(
        stage="level",
        role="student",
        requests=examples,
        prompt_tokens=round(examples * tokens),
        reply_tokens=examples * ANSWER_TOKENS,
        patches=round(examples * patches),
        steps=steps,
        looked=looked,
    )
