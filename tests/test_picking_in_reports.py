"""What a report says of picking gaps, and of what an interval does not tell."""

import json
import re

import pytest

from parityalign.core import DEMO_DATA, DRAWN, Estimate, RunFolder
from parityalign.core.records import VerdictKind
from parityalign.report.intervals import OTHER_TRAININGS
from parityalign.report.picking import picking_study, studied_lanes
from parityalign.report.picking_chart import END, START, Lane, Lanes, picking_chart
from test_first_screen import forgotten, held_out
from test_report import CONTROLS, SCORES, Page, fill, pair, run, squeezed, verdict, written  # noqa: F401 - a fixture

RANDOM = {**CONTROLS["controls"][0], "name": "random pairs", "run_ahead": {"score": -31.5, "ci": [-33.0, -30.0]}}


@pytest.fixture
def trained(tmp_path):
    """A function that makes the folder of a run with two gaps among five usable pairs, trained by some settings."""

    def trained(select="gaps", **facts):
        pairs = [pair(number) for number in range(7)]
        kinds = [
            *[VerdictKind.TEACHER_ONLY] * 2,
            *[VerdictKind.STUDENT_RIGHT] * 2,
            VerdictKind.NEITHER,
            VerdictKind.UNSURE,
            VerdictKind.DROPPED,
        ]
        with RunFolder(tmp_path / "run") as folder:
            fill(folder, "pairs", {"pairs.jsonl": pairs})
            fill(folder, "verdicts", {"verdicts.jsonl": [*map(verdict, pairs, kinds)]})
            student = folder.artifact("student", inputs={}, settings={"level.select": select})
            student.finish({"training": 4}, **{"outcome": "levelled", "result": {"steps": 1234}, **facts})
        (folder.path / "run.yaml").write_text("seed: 1\n")
        return folder.path

    return trained


def section(of):
    """The text of the section on picking of a run's page; empty without one."""
    found = re.search(r'<section id="picking">.*?</section>', written(of), re.S)
    return squeezed(Page(found[0]).text) if found else ""


@pytest.mark.parametrize("select", ["gaps", "auto"])
def test_a_run_that_was_trained_on_gaps_says_where_it_stands_beside_the_study(trained, select):
    told = section(trained(select))
    assert (
        "40 % of all 5 usable pairs, held-out ones too, are gaps, and the student was trained for 1,234 steps." in told
    )
    assert "--controls random" in told and "this run, 40 % gaps" not in told
    for pool in picking_study().pools:
        assert f"{pool.student} student, {100 * pool.gap_share:.0f} % gaps" in told
        for steps, lead in pool.leads.items():
            assert f"{steps:,} steps {lead.score:+z.1f}" in told


@pytest.mark.parametrize(
    ("select", "facts"),
    [("random", {}), ("all", {}), ("gaps", {"outcome": "no_gaps", "result": {}})],
    ids=["random", "all", "nothing to train on"],
)
def test_no_other_run_has_the_study(trained, select, facts):
    assert not section(trained(select, **facts))


def test_what_picking_brought_here_is_drawn_beside_the_study(trained):
    with_control = trained()
    (with_control / "controls.json").write_text(json.dumps({"controls": [RANDOM]}))
    told = section(with_control)
    assert "rather than as many pairs at random, made -31.5 [-33.0, -30.0] points." in told
    assert "this run, 40 % gaps" in told and "-31.5 (1 seed)" in told and "--controls" not in told


def test_a_student_that_was_not_taken_has_no_control_to_ask_for(trained):
    assert "--controls" not in section(trained(outcome="not_better"))


def test_leads_and_intervals_stand_where_the_axis_says():
    lanes = [Lane(100, 3, Estimate(score=5.0, ci=(2.0, 8.0)), (-4.0, 10.0)), Lane(400, 1, Estimate(score=-1.0))]
    drawn = str(picking_chart([Lanes("a pool", "", lanes)]))
    ticks = {
        int(points): float(x) for x, points in re.findall(r'<text x="([\d.]+)"[^>]*middle">([+-]?\d+)</text>', drawn)
    }
    scale = (END - START) / (max(ticks) - min(ticks))
    assert min(ticks) <= -4 and max(ticks) >= 10 and 0 in ticks

    def at(points):
        return pytest.approx(ticks[0] + scale * points, abs=0.11)

    assert [ticks[min(ticks)], ticks[max(ticks)]] == [START, END]
    assert [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)] == [at(5), at(-1)]
    ((low, high),) = re.findall(r'd="M([\d.]+) [\d.]+H([\d.]+)" class="whisker after thick"', drawn)
    assert [float(low), float(high)] == [at(2), at(8)]
    ((low, high),) = re.findall(r'd="M([\d.]+) [\d.]+v6m0-3H([\d.]+)m', drawn)
    assert [float(low), float(high)] == [at(-4), at(10)]


@pytest.mark.parametrize("ends", [(0.0, 0.0), (-0.2, 0.1), (-99.0, 100.0), (3.0, 90.0)])
def test_any_lead_has_an_axis_of_whole_points(ends):
    drawn = str(picking_chart([Lanes("a pool", "", [Lane(1, 1, Estimate(score=ends[0], ci=ends))])]))
    assert 2 <= drawn.count("<line") <= 10


def test_an_interval_over_seeds_is_drawn_of_three_and_more():
    for pool in studied_lanes(picking_study()):
        assert all((lane.over_seeds is not None) == (lane.seeds > 2) for lane in pool.lanes)


ALONE = {"tasks": {}, **forgotten(), "held_out": held_out(56, 89, accepted=True)}


@pytest.mark.parametrize("scores", [SCORES, {**SCORES, **forgotten(), "held_out": ALONE["held_out"]}, ALONE])
def test_what_an_interval_does_not_tell_is_said_once(run, scores):  # noqa: F811
    (run / "scores.json").write_text(json.dumps(scores))
    assert squeezed(Page(written(run)).text).count(OTHER_TRAININGS) == 1
    assert "seeds, each with pictures" not in written(run)


def test_of_the_demo_it_is_told_what_its_seeds_came_to(run):  # noqa: F811
    (run / DEMO_DATA).mkdir()
    (run / DEMO_DATA / DRAWN).touch()
    demo = picking_study().demo
    gained = f"the bundled student gained {min(demo.gains):.1f} to"
    told = f"{len(demo.gains)} seeds, each with pictures of its own too, {gained}"
    assert told in squeezed(Page(written(run)).text)
