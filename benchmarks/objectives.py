"""What each term of the objective is worth on the embedded benchmarks: as many optimiser steps with each, three seeds.

    python benchmarks/objectives.py RUN [--steps 800] [--seeds 3] [--out docs/results-objectives.md]

RUN is a finished run of the demo. Every levelling begins with the same student, on the run's own pairs, and leaves the
vision tower as it is, which saves a third of the time; the seed decides which pairs are replay, which are held out,
and their order. The test questions are the same for all: more than the demo's, on pictures drawn for this alone, since
what terms are worth is less than what 2,400 questions can tell. Each levelling has a process of its own, so that its
peak memory is its own; finished ones are kept in RUN/objectives/.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from parityalign.config.run_yaml import load_config
from parityalign.config.schema import RunConfig
from parityalign.config.training import LevelSettings
from parityalign.core.artifacts import Artifact
from parityalign.core.errors import WorkFailed
from parityalign.core.files import write_whole
from parityalign.core.records import Answer, Question
from parityalign.demo.generate import POOL_PICTURES, POOL_SEEDS, pixel_hash, seeds, write_test
from parityalign.demo.worlds import WORLDS
from parityalign.engines import CachedModel
from parityalign.metrics._statistics import Floats, cluster_sums, sign_flip_p
from parityalign.pipeline.level import leveller
from parityalign.pipeline.pipeline import align
from parityalign.pipeline.preflight import open_run_folder
from parityalign.pipeline.run import Run
from parityalign.stages.evaluate import AFTER_FILE, answer_tests
from parityalign.stages.level import choose_pairs
from parityalign.tasks import load_task
from spread import RESAMPLES, by_task, over_images

ARMS: Mapping[str, Mapping[str, object]] = {
    "answer": {"objective": {"answer": 1.0}},
    "answer + confidence": {"objective": {"answer": 1.0, "confidence": 1.0}},
    "answer + attention": {"objective": {"answer": 1.0, "attention": 1.0}},
    "answer + reasoning": {"objective": {"answer": 1.0, "reasoning": 1.0}},
    "answer + consistency": {"objective": {"answer": 1.0, "consistency": 1.0}},
    "answer + coherence": {"objective": {"answer": 1.0, "coherence": 1.0}},
    "discrepancy": {"objective": {"discrepancy": 1.0}},
}
COMMON: Mapping[str, object] = {"lr_multipliers": {"vision": 0.0}, "patience": 10**6}
"""Settings of every levelling, besides the demo's: trained to the end, the tower left as it is."""
REFERENCE = "answer"
TASKS = ("textvqa", "stvqa", "chartqa", "okvqa")
RIGHT = 0.5
PICTURES = 1000
"""Of the test split of each task, with two questions each."""
TEST_SEED = 1
"""Other pictures than the demo's, whose seed is 0."""


class Levelling(NamedTuple):
    """One levelling, scored."""

    scores: dict[str, list[float]]
    """By task, one a test question."""
    steps: int
    seconds: float
    peak_bytes: int


def prepared(config: RunConfig) -> RunConfig:
    """The run's configuration with both models compared, and the teacher's rationales."""
    discrepancy = config.discrepancy.model_copy(update={"always": True, "rationales": True})
    return config.model_copy(update={"discrepancy": discrepancy})


def questions_of(run: Run) -> dict[str, list[Question]]:
    """The labelled questions by task, drawn into the run folder once.

    Raises:
        WorkFailed: A picture of the pool is among them.
    """
    folder = run.folder.path / "objectives"
    drawn = folder / "drawn.json"
    if not drawn.exists():
        tests = {pixel_hash(each.image) for name in TASKS for each in write_test(folder, name, TEST_SEED, PICTURES)}
        pool = (WORLDS[name](Random(number)) for name in TASKS for number in seeds(POOL_SEEDS, name, 0, POOL_PICTURES))
        if both := sum(pixel_hash(picture.image) in tests for picture in pool):
            raise WorkFailed(f"{both} pictures of the pool are among those of the test; take another TEST_SEED")
        write_whole(drawn, json.dumps({"seed": TEST_SEED, "pictures": PICTURES}))
    read = {name: load_task(name).benchmark for name in TASKS}
    return {name: benchmark.read_test(folder / "test" / name) for name, benchmark in read.items() if benchmark}


def do(config: RunConfig, arm: str, seed: int, steps: int) -> None:
    """Levels and asks one student, unless it is there already."""
    with open_run_folder(prepared(config), lambda *_: None) as run:
        for _ in align(run):
            pass
        settings = settings_of(config, arm, steps)
        student = student_of(run, settings, arm, seed, run.folder.artifact)
        if not student.finished:
            began = time.monotonic()
            student.also = lambda: {"seconds": time.monotonic() - began, "peak_bytes": peak_bytes()}
            train(run, student, settings, seed)
        answers = answers_of(folder_of(arm, seed), student.digest, run.folder.artifact)
        ask(run, answers, run.trained(student))


def train(run: Run, student: Artifact, settings: LevelSettings, seed: int) -> None:
    """Levels a student, without asking whether it is better: that is what the study finds out."""
    choice = choose_pairs(run.judged, settings, seed)
    held_out = [pair for pair, _ in choice.held_out]
    result = leveller(run, settings, seed)(choice.training, held_out, student.path)
    student.finish({"training": len(choice.training), "held_out": len(held_out)}, result=dict(vars(result)))


def settings_of(config: RunConfig, arm: str, steps: int) -> LevelSettings:
    """How a student is levelled."""
    return LevelSettings.model_validate(config.level.model_dump() | {**COMMON, **ARMS[arm], "max_steps": steps})


def folder_of(arm: str, seed: int) -> str:
    """Where in the run folder a levelling is."""
    return f"objectives/{arm.replace(' + ', '-')}/{seed}"


def student_of(run: Run, settings: LevelSettings, arm: str, seed: int, found: Callable[..., Artifact]) -> Artifact:
    """The artifact of a levelled student, looked at (`run.folder.peek`) or to be worked on (`run.folder.artifact`)."""
    inputs = {name: run.artifact(name).digest for name in ("pairs", "verdicts", "discrepancy")}
    plan = {**settings.model_dump(mode="json"), **settings.stands_for, "seed": seed}
    return found(f"{folder_of(arm, seed)}/student", inputs=inputs, settings=plan)


def answers_of(folder: str, student: str, found: Callable[..., Artifact]) -> Artifact:
    """The answers of a student, known by its digest, to the test questions."""
    settings = {"seed": TEST_SEED, "pictures": PICTURES}
    return found(f"{folder}/answers", inputs={"student": student}, settings=settings)


def ask(run: Run, answers: Artifact, student: CachedModel) -> None:
    """Asks a student the test questions, unless it was asked already."""
    if answers.finished:
        return
    settings = run.config.evaluate.model_copy(update={"limit": None})
    tests, seed = questions_of(run), run.config.seed
    said = answer_tests(student, tests, run.tasks, settings=settings, seed=seed, on_progress=lambda *_: None)
    answers.stream(AFTER_FILE, Answer).write(said)
    answers.finish({"answers": len(said)})


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def scored(run: Run, answers: Artifact, tests: Mapping[str, Sequence[Question]]) -> dict[str, list[float]]:
    """The score of each test question, by task."""
    said = {answer.item_id: answer.text for answer in answers.stream(AFTER_FILE, Answer)}
    return {
        name: [run.tasks[name].metric.score(said[f"{name}:{q.question_id}"], q.answers).value for q in questions]
        for name, questions in tests.items()
    }


def collected(
    config: RunConfig, count: int, steps: int
) -> tuple[dict[str, list[Levelling]], dict[str, list[float]], list[str]]:
    """Every arm's levellings by seed, the scores of the student before, and the image of each test question."""
    with open_run_folder(prepared(config), lambda *_: None) as run:
        for _ in align(run):
            pass
        tests = questions_of(run)
        found = {arm: levellings(run, settings_of(config, arm, steps), arm, count, tests) for arm in ARMS}
        untrained = answers_of("objectives/before", run.models.student_fingerprint, run.folder.artifact)
        ask(run, untrained, run.student)
        before = scored(run, untrained, tests)
        images = [question.image for name in TASKS for question in tests[name]]
    return {arm: rows for arm, rows in found.items() if rows}, before, images


def levellings(
    run: Run, settings: LevelSettings, arm: str, count: int, tests: Mapping[str, Sequence[Question]]
) -> list[Levelling]:
    """Those of one arm, by seed, that are finished and up to date in the run folder."""
    found = []
    for seed in range(count):
        student = student_of(run, settings, arm, seed, run.folder.peek)
        if not student.finished:
            continue
        answers = answers_of(folder_of(arm, seed), student.digest, run.folder.peek)
        if answers.finished:
            facts = student.manifest
            steps = facts["result"]["steps"]
            found.append(Levelling(scored(run, answers, tests), steps, facts["seconds"], facts["peak_bytes"]))
    return found


def mean_scores(levellings: Sequence[Mapping[str, Sequence[float]]]) -> Floats:
    """(questions,) of all tasks, one after the other: the mean over the seeds, in points."""
    scores: Floats = np.mean([np.concatenate([each[name] for name in TASKS]) for each in levellings], axis=0)
    return 100 * scores


def report(found: Mapping[str, Sequence[Levelling]], before: Mapping[str, Sequence[float]], images: list[str]) -> str:
    """The page of results."""
    sizes = [len(before[name]) for name in TASKS]
    reference = mean_scores([each.scores for each in found[REFERENCE]])
    base = mean_scores([before])
    step = np.mean([each.seconds / each.steps for each in found[REFERENCE]])
    rows = [_row("student before", base, reference, sizes, images, None)]
    costs = []
    for arm, levellings in found.items():
        mean = mean_scores([each.scores for each in levellings])
        lost = float(np.mean([_forgotten(before, each.scores) for each in levellings]))
        rows.append(_row(arm, mean, reference, sizes, images, lost))
        seconds = np.mean([each.seconds / each.steps for each in levellings])
        peak = max(each.peak_bytes for each in levellings) / 1e9
        spread = (
            np.std([mean_scores([each.scores]).mean() for each in levellings], ddof=1) if len(levellings) > 1 else 0
        )
        costs.append(
            f"| {arm} | {len(levellings)} | {levellings[0].steps:,} | {1000 * seconds:.0f} | {seconds / step:.2f} | "
            f"{peak:.2f} | {spread:.2f} |"
        )
    return _PAGE.format(
        questions=sum(sizes),
        seeds=max(map(len, found.values())),
        right=sum(value >= RIGHT for name in TASKS for value in before[name]),
        results="\n".join(rows),
        costs="\n".join(costs),
    )


_PAGE = """# Effect of each term of the objective

Generated by `make demo-objectives`. The embedded student is levelled on the demo's own pairs, always from the same
weights, with equal numbers of optimiser steps and a frozen vision tower; the seed decides replay, held-out pairs and
order ({seeds} seeds). Scores are means over the seeds, of {questions:,} test questions on pictures that are used
for no other measurement, in points of each task's official metric; `mean` is the mean of the four. Differences are to
`answer`, on the same questions: 95 % intervals from 10,000 bootstrap resamples of the images (a question's mean over
the seeds counts as one score), p from a paired permutation test that flips signs image by image. `worse` names the
tasks whose own interval of the difference is below zero. `forgotten` counts, of the {right:,} test questions that the
student had right before, those that it has wrong after, as a mean over the seeds.

| | textvqa | stvqa | chartqa | okvqa | mean | difference | p | worse | forgotten |
|---|---|---|---|---|---|---|---|---|---|
{results}

| | seeds | steps | ms per step | relative to `answer` | peak GB | spread |
|---|---|---|---|---|---|---|
{costs}

The time per step is that of the whole training divided by its steps, including data loading, held-out evaluations and
checkpoints. `spread` is the standard deviation of the mean score over the seeds.
"""


def _row(arm: str, mean: Floats, reference: Floats, sizes: Sequence[int], images: list[str], lost: float | None) -> str:
    columns, ends = by_task(mean, sizes), over_images(by_task(mean - reference, sizes), images)
    scores = " | ".join(f"{value:.1f}" for value in columns.mean(axis=0))
    gain = by_task(mean - reference, sizes)
    sums, _ = cluster_sums(gain[:, -1:], images)
    p = sign_flip_p(sums[:, 0], permutations=RESAMPLES, rng=np.random.default_rng(1))
    worse = [name for name, (_, high) in zip(TASKS, ends, strict=False) if high < 0]
    told = "" if arm == REFERENCE else f"{gain[:, -1].mean():+z.2f} [{ends[-1][0]:.2f}, {ends[-1][1]:.2f}] | {p:.4f}"
    return f"| {arm} | {scores} | {told or ' | '} | {', '.join(worse)} | {'' if lost is None else f'{lost:.0f}'} |"


def _forgotten(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> int:
    pairs = (pair for name in TASKS for pair in zip(before[name], after[name], strict=True))
    return sum(was >= RIGHT > now for was, now in pairs)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results-objectives.md"))
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help="only this levelling, without the page")
    given = parser.parse_args()
    config = load_config(given.run / "run.yaml").model_copy(update={"run": given.run.absolute()})
    if given.one:
        do(config, given.one[0], int(given.one[1]), given.steps)
        return
    for seed in range(given.seeds):
        for arm in given.arms:
            print(f"{arm}, seed {seed}", flush=True)
            again = [sys.executable, __file__, str(given.run), "--steps", str(given.steps), "--one", arm, str(seed)]
            subprocess.run(again, check=True)
            given.out.write_text(report(*collected(config, given.seeds, given.steps)), encoding="utf-8")


if __name__ == "__main__":
    main()
