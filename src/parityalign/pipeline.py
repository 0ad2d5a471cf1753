"""The figure of the paper: images -> intake -> annotate (PA) -> identify (PI) -> level (PL) -> evaluate -> report.

Each stage makes one artefact; it has nothing to do if that was made `of` the same things with the same settings.
"""

from collections.abc import Iterator

from parityalign.checkup import checkup
from parityalign.joinery import SCORES, Run
from parityalign.levelling import gather_evidence, level_student
from parityalign.report.page import write_report
from parityalign.sharing import write_card
from parityalign.stages.annotate import annotate, written_pairs
from parityalign.stages.evaluate import Models, evaluate, score, write_scores
from parityalign.stages.identify import identify, verdicts_of
from parityalign.stages.intake import accepted, intake
from parityalign.stages.level import was_levelled


def align(run: Run) -> Iterator[str]:
    """Brings the student towards the teacher; yields each stage's name when it is done, to stop or go on."""
    tasks, config, seed, progress = run.tasks, run.config, run.config.seed, run.progress
    teacher, student = run.load_teacher, run.load_student

    with run.stage("intake", "images", of=["pools", "tests"], settings=["intake"]) as images:
        intake(images, run.pools, run.tests, settings=config.intake, progress=progress)
    yield "intake"

    of = ["images", "teacher model", "annotate prompt"]
    with run.stage("annotate", "pairs", of=of, settings=["annotate", "seed"]) as made:
        annotate(made, accepted(images), tasks, teacher, settings=config.annotate, seed=seed, progress=progress)
        pairs = written_pairs(made)
    yield "annotate"

    of = ["pairs", "student model", "teacher model", "answer prompt", "metric"]
    with run.stage("identify", "verdicts", of=of, settings=["identify"]) as verdicts:
        identify(verdicts, pairs, tasks, student, teacher, settings=config.identify, progress=progress)
    yield "identify"

    evidence = gather_evidence(run, pairs, verdicts_of(verdicts))
    yield "observe"

    of = ["pairs", "verdicts", *evidence, "student model", "answer prompt"]
    with run.stage("level", "student", of=of, settings=["level", "seed", *evidence]) as levelled:
        level_student(run, levelled, pairs, verdicts_of(verdicts), settings=config.level, seed=seed)
    write_card(config)
    yield "level"

    of = ["tests", "student model", "student", "teacher model", "answer prompt"]
    with run.stage("evaluate", "answers", of=of, settings=["evaluate", "seed"]) as answers:
        models = Models(student, run.load_levelled if was_levelled(levelled) else None, teacher)
        evaluate(answers, run.tests, tasks, models, settings=config.evaluate, seed=seed, progress=progress)
    scores = score(answers, run.tests, tasks, settings=config.evaluate, seed=seed, left_out=run.left_out)
    write_scores(run.folder.path / SCORES, checkup(run, pairs, verdicts_of(verdicts)).beside(scores))
    write_card(config)
    yield "evaluate"

    if not run.report_is_current:
        write_report(run.folder.path)
    yield "report"
