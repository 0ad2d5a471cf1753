"""The figure of the paper: images -> intake -> annotate (PA) -> identify (PI) -> level (PL) -> evaluate -> report.

Each stage makes one artifact; it has nothing to do if that was made `of` the same things with the same settings.
"""

from collections.abc import Iterator

from parityalign.core import SCORES
from parityalign.export import write_card
from parityalign.pipeline.level import level_student, measure_discrepancy
from parityalign.pipeline.retention import measure_retention
from parityalign.pipeline.run import Run
from parityalign.report import write_report
from parityalign.stages import (
    Models,
    accepted_images,
    annotate_images,
    evaluate_models,
    identify_gaps,
    score_run_answers,
    sort_images,
    verdicts_of,
    was_levelled,
    write_scores,
    written_pairs,
)


def align(run: Run) -> Iterator[str]:
    """Brings the student towards the teacher; yields each stage's name when it is done, to stop or go on."""
    tasks, config, seed, progress = run.tasks, run.config, run.config.seed, run.progress
    teacher, student = run.load_teacher, run.load_student

    with run.stage("intake", "images", of=["pools", "tests"], settings=["intake"]) as images:
        sort_images(images, run.pools, run.tests, settings=config.intake, progress=progress)
    yield "intake"

    of = ["images", "teacher model", "annotate prompt"]
    with run.stage("annotate", "pairs", of=of, settings=["annotate", "seed"]) as made:
        annotate_images(
            made, accepted_images(images), tasks, teacher, settings=config.annotate, seed=seed, progress=progress
        )
        pairs = written_pairs(made)
    yield "annotate"

    of = ["pairs", "student model", "teacher model", "answer prompt", "metric"]
    with run.stage("identify", "verdicts", of=of, settings=["identify"]) as verdicts:
        identify_gaps(verdicts, pairs, tasks, student, teacher, settings=config.identify, progress=progress)
    yield "identify"

    discrepancy = measure_discrepancy(run, pairs, verdicts_of(verdicts))
    yield "discrepancy"

    of = ["pairs", "verdicts", *discrepancy, "student model", "answer prompt"]
    with run.stage("level", "student", of=of, settings=["level", "seed", *discrepancy]) as levelled:
        level_student(run, levelled, pairs, verdicts_of(verdicts), settings=config.level, seed=seed)
    write_card(config)
    yield "level"

    of = ["tests", "student model", "student", "teacher model", "answer prompt"]
    with run.stage("evaluate", "answers", of=of, settings=["evaluate", "seed"]) as answers:
        models = Models(student, run.load_levelled if was_levelled(levelled) else None, teacher)
        evaluate_models(answers, run.tests, tasks, models, settings=config.evaluate, seed=seed, progress=progress)
    scores = score_run_answers(answers, run.tests, tasks, settings=config.evaluate, seed=seed, left_out=run.left_out)
    write_scores(run.folder.path / SCORES, measure_retention(run, pairs, verdicts_of(verdicts)).beside(scores))
    write_card(config)
    yield "evaluate"

    if not run.report_is_current:
        write_report(run.folder.path)
    yield "report"
