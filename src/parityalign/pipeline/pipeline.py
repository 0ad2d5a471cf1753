"""The figure of the paper: images -> intake -> annotate (PA) -> identify (PI) -> level (PL) -> evaluate -> report.

The stages are those of `stages/_list.py`, each with an artifact that is redone only when its inputs or settings
change. Views are made from the artifacts each time: scores, the student's card, the report.
"""

from collections.abc import Callable, Iterator, Mapping

from parityalign.core import SCORES, disk_faults_in_words
from parityalign.export import write_card
from parityalign.pipeline.run import Run
from parityalign.report import write_report
from parityalign.stages import score_of_run, write_scores

View = Callable[[Run], object]


def align(run: Run, upto: str | None = None) -> Iterator[str]:
    """Does the stages of a run; yields each stage's name when it is done.

    Args:
        run: The run.
        upto: The last command whose stages are done; None: all, and the report.
    """
    last = max((place for place, stage in enumerate(run.stages) if stage.asked_by == upto), default=None)
    for place, stage in enumerate(run.stages):
        run.do(stage)
        for view in VIEWS.get(stage.name, ()):
            with disk_faults_in_words(run.folder.path):
                view(run)
        yield stage.name
        if place == last:
            return
    with disk_faults_in_words(run.folder.path):
        write_report(run.folder.path)
    yield "report"


def _write_scores(run: Run) -> None:
    write_scores(run.folder.path / SCORES, score_of_run(run))


def _write_card(run: Run) -> None:
    write_card(run.config)


VIEWS: Mapping[str, tuple[View, ...]] = {"level": (_write_card,), "speed": (_write_scores, _write_card)}
"""Views to write after a stage, by the stage's name."""
