"""The study of what picking is worth: its page is that of its records, its pools are what they are called."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from statistics import mean

import pytest

from parityalign.core import Judged, Pair, Verdict, VerdictKind
from parityalign.report.picking import picking_study
from parityalign.stages.level import TRAINABLE
from picking.answers import in_short
from picking.cells import GAPS, RANDOM, RARE, TIERS, Cell, add, packed, records, unpacked
from picking.measured import measured
from picking.page import write
from picking.pools import gap_share, is_gap, thinned, with_noise
from picking.trainings import Seed
from study import demo_of

ROOT = Path(__file__).parents[1]
RECORDS, PAGE = ROOT / "docs" / "study", ROOT / "docs" / "results-picking.md"
NUMBERS = ROOT / "src" / "parityalign" / "report" / "picking.json"


def lines() -> list[dict]:
    return [json.loads(line) for path in sorted(RECORDS.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_page_figure_and_numbers_in_the_package_are_those_of_the_records(tmp_path):
    write(RECORDS, tmp_path / "results-picking.md", tmp_path / "picking.json")
    assert (tmp_path / "results-picking.md").read_text() == PAGE.read_text()
    assert (tmp_path / "study" / "picking.svg").read_text() == (RECORDS / "picking.svg").read_text()
    assert (tmp_path / "picking.json").read_text() == NUMBERS.read_text()


def test_the_numbers_in_the_package_are_means_of_the_recorded_scores():
    found: dict[tuple, dict[int, float]] = {}
    before = {(each["student"], each["seed"]): points(each["before"]) for each in lines() if "student" in each}
    for each in lines():
        if "arm" in each and not each["pool"]["noise"]:
            pool = each["pool"]["student"], each["pool"]["share"]
            gain = points(each["scores"]) - before[pool[0], each["seed"]]
            found.setdefault((pool, each["arm"], each["steps"]), {})[each["seed"]] = gain
    leads = []
    for (pool, arm, steps), of_gaps in found.items():
        both = of_gaps.keys() & found.get((pool, RANDOM, steps), {}).keys()
        if arm == GAPS and both:
            lead = mean(of_gaps[seed] - found[pool, RANDOM, steps][seed] for seed in both)
            leads.append((pool[0], steps, len(both), round(lead, 7)))
    study = picking_study()
    told = [(pool.student, steps, lead.seeds, lead.score) for pool in study.pools for steps, lead in pool.leads.items()]
    assert sorted(told) == sorted(leads)
    assert [*study.demo.gains] == [
        round(gain, 7) for _, gain in sorted(found[("weak", 0), GAPS, study.demo.steps].items())
    ]


def test_a_study_begins_in_an_empty_folder_and_goes_on_where_it_was(tmp_path):
    for _ in range(2):
        run = demo_of(tmp_path / "runs", 3, pictures=2)
        run.upto("intake")
        assert run.config.seed == 3
    assert len([*(tmp_path / "runs" / "demo-3" / "data" / "pool").rglob("*.*g")]) == 4 * 2


def test_readme_has_the_study_in_short():
    assert " ".join(in_short(measured(records(RECORDS))).split()) in " ".join((ROOT / "README.md").read_text().split())


def test_every_gain_of_the_page_is_the_mean_of_the_recorded_scores():
    before = {(each["student"], each["seed"]): points(each["before"]) for each in lines() if "student" in each}
    gains: dict[tuple, list[float]] = {}
    for each in lines():
        if "arm" in each:
            pool = each["pool"]
            cell = (pool["student"], pool["share"], pool["noise"], each["arm"], each["steps"])
            gains.setdefault(cell, []).append(points(each["scores"]) - before[pool["student"], each["seed"]])
    shown = Counter(row.split(" | ")[6].split(" ")[0] for row in rows_of_cells())
    assert shown == Counter(f"{mean(values):+z.1f}" for values in gains.values())


def points(scores: dict[str, str]) -> float:
    """The mean of the tasks' means."""
    return mean(mean(int(text[at : at + 2], 16) for at in range(0, len(text), 2)) for text in scores.values())


def rows_of_cells() -> list[str]:
    every = PAGE.read_text().partition("## Every cell\n")[2].partition("\n## ")[0]
    return [row for row in every.splitlines() if row.startswith("| ") and not row.startswith(("| steps", "|--"))]


def test_no_two_cells_share_a_folder():
    planned = {cell for tier in TIERS for cell in tier.cells}
    assert len({cell.name for cell in planned}) == len(planned)


def test_what_is_recorded_is_not_trained_again(tmp_path):
    cell = Cell(RARE, RANDOM, 100)
    add(tmp_path / "records", 3, {"seed": 3, "pool": RARE._asdict(), "arm": RANDOM, "steps": 100})
    with ExitStack() as open_runs:
        seed = Seed(tmp_path / "no runs", 5, 3, tmp_path / "records", open_runs)
        seed.do([cell])
        with pytest.raises(Exception, match="no runs"):
            seed.do([cell._replace(steps=400)])


def judged(count: int) -> list[Judged]:
    """Of eight pairs four are gaps, one has nobody's answer, one was dropped."""
    kinds = [
        *[VerdictKind.TEACHER_ONLY] * 4,
        VerdictKind.NEITHER,
        VerdictKind.DROPPED,
        *[VerdictKind.STUDENT_RIGHT] * 2,
    ]
    return [
        Judged(
            Pair(
                pair_id=str(place),
                image_id=str(place // 2),
                image=f"{place // 2}.png",
                task="chartqa",
                question=f"question {place % 3}?",
                answer=f"answer {place % 5}",
                teacher="t",
            ),
            Verdict(pair_id=str(place), verdict=kinds[place % len(kinds)], reason=""),
        )
        for place in range(count)
    ]


@pytest.mark.parametrize("share", [10, 20])
def test_a_thinned_pool_has_its_share_of_gaps_and_all_else(share):
    whole = judged(800)
    left = thinned(whole, share, seed=0)
    assert abs(100 * gap_share(left) - share) < 0.5
    assert [each for each in whole if not is_gap(each)] == [each for each in left if not is_gap(each)]
    assert thinned(whole, 0, seed=0) == whole
    assert thinned(whole, share, seed=1) != left == thinned(whole[::-1], share, seed=0)[::-1]


def test_wrong_labels_are_other_pictures_answers_and_count_as_gaps():
    whole = judged(800)
    usable = sum(each.verdict.verdict in TRAINABLE for each in whole)
    changed = [(one, two) for one, two in zip(whole, with_noise(whole, 10, seed=0), strict=True) if one != two]
    assert sum(one.pair.answer != two.pair.answer for one, two in changed) == len(changed) == usable // 10
    assert {two.verdict.verdict for _, two in changed} == {VerdictKind.TEACHER_ONLY}
    known = {(each.pair.question, each.pair.answer) for each in whole}
    assert all((two.pair.question, two.pair.answer) in known for _, two in changed)
    assert with_noise(whole, 0, seed=0) == whole


def test_scores_are_kept_to_a_hundredth():
    scores = [0.0, 1.0, 0.3, 0.6, 0.9, 0.07, 0.5]
    assert unpacked(packed(scores)) == scores
