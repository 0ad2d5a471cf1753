"""The demo's controls: those of every run, and one that needs pictures with known facts.

true labels      as many pairs as the run trained on, drawn with the pictures instead of written by the teacher
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random

from parityalign.core import GapPrecision, ImageRef, Pair, Task, VerdictKind, content_id
from parityalign.demo.canvas import Fact, one_of_each_kind
from parityalign.demo.generate import truth
from parityalign.pipeline import Aligned, Arm, Run, aligned_of, control_arm, write_controls
from parityalign.stages import Choice, hold_out


def run_controls(run: Run) -> None:
    """Trains and scores every control of a finished run, writes `controls.json` and the report once more."""
    aligned = aligned_of(run)
    before = [control_arm(aligned, name) for name in ("gaps", "all", "random")]
    arms = [*before, true_labels(aligned), control_arm(aligned, "format")]
    gaps = [pair for pair, verdict in run.judged if verdict.verdict == VerdictKind.TEACHER_ONLY]
    right = sum(is_true(pair, run.tasks[pair.task]) for pair in gaps)
    write_controls(run, aligned, arms, GapPrecision(n=len(gaps), right=right))


def is_true(pair: Pair, task: Task) -> bool:
    """Whether a pair's question is one about the drawn picture and its answer is right by the task's metric."""
    asked = pair.question.casefold()
    answers = [fact.answer for fact in truth(pair.task, Path(pair.image)) if fact.question.casefold() == asked]
    return any(task.metric.score(pair.answer, [answer.casefold()] * 10).value >= 0.5 for answer in answers)


def true_labels(aligned: Aligned) -> Arm:
    """As many pairs of each task as the run trained on, drawn with the pictures that are not held out."""
    held = hold_out(aligned.judged, aligned.settings, aligned.seed)
    free = [image for image in aligned.images if image.image_id not in held.images]
    wanted = Counter(pair.task for pair in aligned.chosen().training)
    chosen = Choice(true_pairs(free, wanted, aligned.seed), held.pairs, 0)
    return Arm("true labels", "as many, drawn with the pictures", chosen, False)


def true_pairs(images: Sequence[ImageRef], wanted: Mapping[str, int], seed: int) -> list[Pair]:
    """As many drawn facts of each task as wanted, kinds and pictures evenly as a teacher draws; no fact twice."""
    pairs: list[Pair] = []
    for task, count in sorted(wanted.items()):
        for image, fact in islice(_drawn_facts([image for image in images if image.task == task], Random(seed)), count):
            pair_id = content_id(image.image_id, task, fact.question, fact.answer, "truth")
            pairs.append(
                Pair(
                    pair_id=pair_id,
                    image_id=image.image_id,
                    image=image.path,
                    task=task,
                    question=fact.question,
                    answer=fact.answer,
                    teacher="truth",
                )
            )
    return pairs


def _drawn_facts(images: Sequence[ImageRef], rng: Random) -> Iterator[tuple[ImageRef, Fact]]:
    """Every fact of every picture, in rounds with at most one of each kind per picture, in random order."""
    left = [(image, list(dict.fromkeys(truth(image.task, Path(image.path))))) for image in images]
    while left:
        taken = [(image, fact) for image, facts in left for fact in one_of_each_kind(facts, rng)]
        yield from rng.sample(taken, len(taken))
        gone = {(image.image_id, fact) for image, fact in taken}
        rest = ((image, [fact for fact in facts if (image.image_id, fact) not in gone]) for image, facts in left)
        left = [(image, facts) for image, facts in rest if facts]
