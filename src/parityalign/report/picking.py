"""What picking gaps brings: the study of it on the bundled models, and where a run stands beside it.

`picking.json` comes with the package; `make study-page` writes it from the records of the study.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from parityalign.core import STUDENT_FOLDER, Controls, Estimate, Record, VerdictKind, read_manifest
from parityalign.report.picking_chart import Lane, Lanes, picking_chart
from parityalign.report.tables import counted, estimate_cell, percent
from parityalign.stages import LEVELLED, TRAINABLE

STUDY = "picking.json"
"""The file in this package."""
FROM_GAPS = ("gaps", "auto")
"""Values of `level.select` by which students are trained on gaps and replay."""


class Lead(Record):
    """How far students on gaps and replay are ahead of students on as many random pairs, with as many steps."""

    score: float
    """In points, a mean over seeds."""
    seeds: int
    over_seeds: tuple[float, float] | None
    """95 %, of Student's t; None where there are fewer than three seeds."""
    over_images: tuple[float, float]
    """95 %, from a bootstrap over images."""


class StudiedPool(Record):
    """A pool of the study."""

    student: str
    """`weak` or `strong`."""
    gap_share: float
    """Gaps among the usable pairs, between 0 and 1."""
    wrong_before: float
    """Test questions that the student had wrong before, between 0 and 1."""
    trained: int
    """Students that were trained on gaps and replay."""
    taken: int
    """Those of them that were better on held-out images."""
    leads: dict[int, Lead]
    """By optimiser steps."""


class DemoSeeds(Record):
    """What the demo's models gained seed by seed; each seed has pictures, pairs and a training of its own."""

    steps: int
    gains: tuple[float, ...]
    """In points."""


class PickingStudy(Record):
    """The content of `picking.json`."""

    questions: int
    """Test questions of a seed."""
    pools: tuple[StudiedPool, ...]
    demo: DemoSeeds


class Picking(NamedTuple):
    """What the page says of picking gaps."""

    here: str
    """Where this run stands, in sentences."""
    chart: Markup
    measured: str
    """What the chart shows, in two sentences."""


def picking_study() -> PickingStudy:
    """The study that comes with the package."""
    return PickingStudy.model_validate_json((files(__package__) / STUDY).read_bytes())


def studied_lanes(study: PickingStudy) -> list[Lanes]:
    """The study as it is drawn."""
    return [
        Lanes(
            f"{pool.student} student, {percent(pool.gap_share)} gaps",
            f"{pool.taken} of {pool.trained} taken",
            [
                Lane(steps, lead.seeds, Estimate(score=lead.score, ci=lead.over_images), lead.over_seeds)
                for steps, lead in sorted(pool.leads.items())
            ],
        )
        for pool in study.pools
    ]


def picking_of(
    run: Path, verdicts: Mapping[str, Mapping[VerdictKind, int]], controls: Controls | None
) -> Picking | None:
    """What the page says of picking gaps; None of a run whose student was not trained on gaps.

    Args:
        run: The run folder.
        verdicts: For each task how many pairs have each verdict.
        controls: What was trained beside it, if anything was.
    """
    manifest = read_manifest(run / STUDENT_FOLDER) or {}
    steps = manifest.get("result", {}).get("steps")
    usable = sum(counts.get(kind, 0) for counts in verdicts.values() for kind in TRAINABLE)
    if manifest.get("settings", {}).get("level.select") not in FROM_GAPS or not steps or not usable:
        return None
    study = picking_study()
    share = sum(counts.get(VerdictKind.TEACHER_ONLY, 0) for counts in verdicts.values()) / usable
    ahead = _ahead_of_random(controls)
    here = [
        f"In this run {percent(share)} of all {counted(usable, 'usable pair')}, held-out ones too, are gaps, and the "
        f"student was trained for {counted(steps, 'step')}."
    ]
    lanes = studied_lanes(study)
    if ahead:
        lanes.append(Lanes(f"this run, {percent(share)} gaps", "", [Lane(steps, 1, ahead)]))
        here.append(
            f"To pick them, rather than as many pairs at random, made {estimate_cell(ahead, signed=True)} points."
        )
    elif manifest.get("outcome") == LEVELLED:
        here.append("Whether that paid, a control tells: parityalign run RUN.yaml --controls random.")
    return Picking(" ".join(here), picking_chart(lanes), _measured(study))


def _ahead_of_random(controls: Controls | None) -> Estimate | None:
    known = {control.name: control.run_ahead for control in (controls.controls if controls else ())}
    return known.get("random pairs")


def _measured(study: PickingStudy) -> str:
    seeds = [lead.seeds for pool in study.pools for lead in pool.leads.values()]
    return (
        f"Measured on the bundled models, {_range(seeds)} seeds a line and {study.questions:,} test questions a seed: "
        "how far students trained on gaps and replay are ahead of those trained for as many steps on as many pairs at "
        f"random; taken are those that were better on held-out images. Before, {_wrong(study.pools)} answers to the "
        "test were wrong; on a pool with fewer gaps than that a lead is worth less."
    )


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])


def _wrong(pools: Sequence[StudiedPool]) -> str:
    by_student = {pool.student: percent(pool.wrong_before) for pool in pools}
    return " and ".join(f"{share} of the {student} student's" for student, share in by_student.items())
