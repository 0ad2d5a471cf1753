"""The measures of discrepancy: how the two models differ on each pair, what that tells, and how it is shown."""

import json
import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import mannwhitneyu

from makers import artifact, content, draw
from parityalign.config.backend import Backend
from parityalign.config.schema import DiscrepancySettings
from parityalign.core import RunFolder, manifest_digest
from parityalign.core.layout import PAIR_DISCREPANCIES
from parityalign.core.records import Judged, Measure, Pair, PairDiscrepancy, Rationale, Verdict, VerdictKind
from parityalign.core.seals import sealed
from parityalign.core.signals import (
    ON_RATIONALES,
    RATIONALES,
    STUDENT,
    TEACHER,
    Observation,
    ObservationRef,
    write_shard,
)
from parityalign.metrics._comparisons import Item, calibration, rank_correlation, separation, spread
from parityalign.models.backends import fake
from parityalign.report.discrepancy import discrepancy_tables, measure_table, spreads
from parityalign.report.page import write_report
from parityalign.report.spreads import _ticks, spread_chart
from parityalign.stages._measures import attention_divergence, write_pair_discrepancies
from parityalign.stages.weighting import most_discrepant_first, pair_weights
from projects import done, refusal

HOSTILE = "<script>alert(1)</script>"
CHANCE = np.random.default_rng
KINDS = [VerdictKind.TEACHER_ONLY, VerdictKind.STUDENT_RIGHT, VerdictKind.NEITHER, VerdictKind.BOTH]
GRID = 16


def pair(number: int, task: str = "textvqa", image: str = "nowhere.png", answer: str = "tea") -> Pair:
    return Pair(
        pair_id=f"p{number:03}",
        image_id=f"i{number // 2}",
        image=image,
        task=task,
        question=f"what is {number}?",
        answer=answer,
        teacher="t",
    )


def verdict(of: Pair, kind: VerdictKind) -> Verdict:
    return Verdict(pair_id=of.pair_id, verdict=kind, reason="", student_text=HOSTILE)


def shown(mean: float, cells: np.ndarray | None, tokens: int = 2) -> Observation:
    """What a model shows that gives each token of the answer the same log-probability."""
    return Observation(
        ids=np.arange(tokens, dtype=np.int32),
        ends=np.arange(1, tokens + 1, dtype=np.int32),
        logprobs=np.full(tokens, mean, dtype=np.float16),
        top_ids=np.zeros((tokens, 1), dtype=np.int32),
        top_logprobs=np.zeros((tokens, 1), dtype=np.float16),
        tail=np.zeros(tokens, dtype=np.float16),
        places=(np.zeros(0) if cells is None else cells).astype(np.float16),
    )


def spot(place: int) -> np.ndarray:
    """A map that looks at one cell."""
    return np.eye(GRID)[place]


def write_signals(made, who: str, seen: dict[Pair, Observation | str], suffix: str = "") -> None:
    """Writes the signals of a model, or why there are none."""
    kept = [(each, found) for each, found in seen.items() if not isinstance(found, str)]
    rows = {each.pair_id: row for row, (each, _) in enumerate(kept)}
    if kept and not suffix:
        write_shard(made.path / f"{who}.safetensors", [found for _, found in kept])
    lines = [
        ObservationRef(pair_id=each.pair_id, why_not=found)
        if isinstance(found, str)
        else ObservationRef(
            pair_id=each.pair_id,
            shard=None if suffix else f"{who}.safetensors",
            row=rows[each.pair_id],
            tokens=len(found.ids),
            mean_logprob=found.mean_logprob,
            has_places=len(found.places) > 0,
        )
        for each, found in seen.items()
    ]
    made.stream(f"{who}{suffix}.jsonl", ObservationRef).append(lines)


def compared(folder, teacher, student, *, kinds=None, rationales=(), scored=None) -> tuple[list[PairDiscrepancy], dict]:
    """How the models differ on pairs, from signals that are written by hand."""
    made = artifact(folder)
    write_signals(made, TEACHER, teacher)
    write_signals(made, STUDENT, student)
    made.stream(RATIONALES, Rationale).append(list(rationales))
    for who, seen in (scored or {}).items():
        write_signals(made, who, seen, ON_RATIONALES)
    pairs = list(teacher)
    verdicts = [verdict(each, (kinds or {}).get(each, VerdictKind.TEACHER_ONLY)) for each in pairs]
    counts = write_pair_discrepancies(made, [*map(Judged, pairs, verdicts)])
    return list(made.stream(PAIR_DISCREPANCIES, PairDiscrepancy)), counts


# One pair


cells = st.lists(st.floats(0, 1, width=16), min_size=4, max_size=4).filter(lambda values: sum(values) > 1e-3)


@given(cells, cells)
def test_the_divergence_of_two_maps_is_scipys_and_the_same_from_both_sides(one, other):
    p, q = np.array(one, dtype=np.float16), np.array(other, dtype=np.float16)
    found = attention_divergence(p, q)
    assert found == pytest.approx(np.nan_to_num(jensenshannon(p.astype(float), q.astype(float))) ** 2, abs=1e-9)
    assert found == attention_divergence(q, p)
    assert 0 <= found <= math.log(2) + 1e-12


def test_the_divergence_is_zero_for_one_map_and_ln_two_for_two_apart():
    assert attention_divergence(spot(3), 7 * spot(3)) == 0
    assert attention_divergence(spot(3), spot(4)) == pytest.approx(math.log(2))


def test_a_pair_is_compared_by_the_signals_of_both_models(tmp_path):
    one = pair(0)
    rationale = Rationale(pair_id=one.pair_id, text="the cup. Answer: tea")
    (found,), counts = compared(
        tmp_path,
        {one: shown(-0.5, spot(1), tokens=3)},
        {one: shown(-2.0, spot(2), tokens=2)},
        rationales=[rationale],
        scored={TEACHER: {one: shown(-1.0, None)}, STUDENT: {one: shown(-3.0, None)}},
    )
    assert (found.confidence_gap, found.rationale_gap, found.missing) == (1.5, 2.0, {})
    assert found.attention_divergence == pytest.approx(math.log(2), abs=1e-6)
    assert (found.teacher_logprob, found.teacher_tokens) == (-0.5, 3)
    assert (found.student_logprob, found.student_tokens) == (-2.0, 2)
    assert counts == {"confidence_gap known": 1, "attention_divergence known": 1, "rationale_gap known": 1}


@pytest.mark.parametrize(
    ("kind", "teacher", "student"),
    [
        (VerdictKind.TEACHER_ONLY, True, False),
        (VerdictKind.NEITHER, False, False),
        (VerdictKind.STUDENT_RIGHT, None, True),
        (VerdictKind.BOTH, True, True),
        (VerdictKind.STUDENT_ONLY, False, True),
    ],
)
def test_who_is_right_is_known_as_far_as_the_verdict_tells(tmp_path, kind, teacher, student):
    one = pair(0)
    (found,), _ = compared(tmp_path, {one: "opaque"}, {one: "opaque"}, kinds={one: kind})
    assert (found.verdict, found.teacher_right, found.student_right) == (kind, teacher, student)


def test_what_is_missing_stays_missing_with_the_reason_and_is_counted(tmp_path):
    served, unsafe, blind, small, broken, untold = (pair(number) for number in range(6))
    teacher = dict.fromkeys([unsafe, blind, small, broken, untold], shown(-1, spot(0)))
    student = dict.fromkeys([served, small, untold], shown(-1, spot(0)))
    endless = shown(-math.inf, np.full(GRID, math.nan))
    found, counts = compared(
        tmp_path,
        {served: "not_shown", **teacher, small: shown(-1, np.ones(4))},
        {**student, unsafe: "special_token", blind: shown(-1, None), broken: endless},
        rationales=[Rationale(pair_id=untold.pair_id, text=None, why_not="other_answer")],
    )
    missing = {each.pair_id: each.missing for each in found}
    assert missing[served.pair_id]["confidence_gap"] == "teacher_not_shown"
    assert missing[unsafe.pair_id]["attention_divergence"] == "student_special_token"
    assert missing[blind.pair_id] == {"attention_divergence": "student_no_map", "rationale_gap": "not_asked_for"}
    assert missing[small.pair_id]["attention_divergence"] == "other_grid"
    assert missing[broken.pair_id]["confidence_gap"] == "not_finite"
    assert missing[broken.pair_id]["attention_divergence"] == "not_finite"
    assert missing[untold.pair_id] == {"rationale_gap": "other_answer"}
    for each in found:
        assert {measure for measure in Measure if getattr(each, measure) is None} == each.missing.keys()
    for measure in Measure:
        assert sum(count for name, count in counts.items() if name.startswith(measure)) == len(found)


def test_a_comparison_that_was_cut_off_is_continued_to_the_same_bytes(tmp_path):
    pairs = {pair(number): shown(-number / 4, spot(number)) for number in range(5)}
    compared(tmp_path / "whole", pairs, pairs)
    whole = content(tmp_path / "whole" / "made")
    compared(tmp_path / "again", pairs, pairs)
    path = tmp_path / "again" / "made" / PAIR_DISCREPANCIES
    path.write_bytes(path.read_bytes()[:-70])
    verdicts = [verdict(each, VerdictKind.TEACHER_ONLY) for each in pairs]
    write_pair_discrepancies(artifact(tmp_path / "again"), [*map(Judged, pairs, verdicts)])
    assert content(tmp_path / "again" / "made") == whole


# Weights and order


def differs(number: int, *, gap=None, teacher=None, divergence=None, rationale=None, **more) -> PairDiscrepancy:
    given = {"verdict": VerdictKind.TEACHER_ONLY, "teacher_right": True, "student_right": False, "task": "textvqa"}
    return PairDiscrepancy(
        pair_id=f"p{number:03}",
        image_id=f"i{number}",
        teacher_logprob=teacher,
        student_logprob=None if gap is None or teacher is None else teacher - gap,
        teacher_tokens=2,
        student_tokens=2,
        confidence_gap=gap,
        attention_divergence=divergence,
        rationale_gap=rationale,
        **{**given, **more},
    )


maybe = st.one_of(st.none(), st.floats(-60_000, 0))
pools = st.lists(st.tuples(maybe, st.one_of(st.none(), st.floats(-60_000, 60_000))), min_size=1, max_size=12)


@given(pools, st.sampled_from(["none", "teacher_confidence", "confidence_gap"]), st.floats(0.1, 8), st.randoms())
def test_weights_are_positive_have_mean_one_and_do_not_hang_on_the_order(pool, by, exponent, chance):
    those = [differs(number, teacher=teacher, gap=gap) for number, (teacher, gap) in enumerate(pool)]
    chosen = DiscrepancySettings(weight_by=by, weight_exponent=exponent)
    weights = pair_weights(those, chosen)
    assert weights.keys() == {each.pair_id for each in those}
    assert all(weight > 0 for weight in weights.values())
    assert math.fsum(weights.values()) / len(weights) == pytest.approx(1)
    chance.shuffle(those)
    assert pair_weights(those, chosen) == weights
    if by == "none":
        assert set(weights.values()) == {1.0}


def test_a_teacher_that_is_sure_of_its_answer_counts_more_by_the_power_of_its_probability():
    those = [differs(0, teacher=math.log(0.8)), differs(1, teacher=math.log(0.4)), differs(2)]
    weights = pair_weights(those, DiscrepancySettings(weight_by="teacher_confidence", weight_exponent=2))
    assert weights["p000"] / weights["p001"] == pytest.approx(4)
    assert weights["p002"] == 1


def test_a_larger_confidence_gap_counts_more_by_the_teachers_part_of_both_probabilities():
    those = [differs(0, gap=math.log(3)), differs(1, gap=0.0), differs(2, gap=500.0)]
    weights = pair_weights(those, DiscrepancySettings(weight_by="confidence_gap"))
    assert weights["p000"] / weights["p001"] == pytest.approx(0.75 / 0.5)
    assert weights["p002"] / weights["p001"] == pytest.approx(1 / 0.5)


def test_no_pairs_have_no_weights():
    assert pair_weights([], DiscrepancySettings(weight_by="teacher_confidence")) == {}


def test_the_most_discrepant_pair_comes_first_and_the_unknown_last():
    those = [
        differs(0, gap=1.0, rationale=0.1),
        differs(1),
        differs(2, gap=3.0, rationale=5.0),
        differs(3, gap=-2.0),
    ]
    assert [each.pair_id for each in most_discrepant_first(those, Measure.CONFIDENCE_GAP)] == [
        *("p002", "p000", "p003", "p001")
    ]
    assert [each.pair_id for each in most_discrepant_first(those, Measure.RATIONALE_GAP)][:2] == ["p002", "p000"]


# What the numbers tell


items = st.lists(
    st.builds(Item, st.integers(0, 5).map(float), st.booleans(), st.integers(0, 4)), min_size=2, max_size=30
)


@settings(deadline=None)
@given(items)
def test_the_area_is_the_share_of_pairs_of_items_in_the_right_order(items):
    inside, outside = ([item.value for item in items if item.inside is side] for side in (True, False))
    found = separation(items, CHANCE(0))
    if not inside or not outside:
        assert found is None
        return
    assert found.area == pytest.approx(mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))
    assert (found.inside, found.outside) == (len(inside), len(outside))
    assert (found.interval is None) == (found.images == 1)


def test_the_interval_is_about_that_of_drawing_the_images_and_ranking_anew():
    chance = CHANCE(3)
    images = chance.integers(80, size=400)
    luck = chance.normal(size=80)
    values = luck[images] + chance.normal(size=400)
    wrong = values + 2 * chance.normal(size=400) > 0
    found = separation([Item(v, bool(w), i) for v, w, i in zip(values, wrong, images, strict=True)], CHANCE(0))
    on = [np.flatnonzero(images == image) for image in range(80)]
    draws = [np.concatenate([on[image] for image in chance.integers(80, size=80)]) for _ in range(600)]
    areas = [mannwhitneyu(values[d][wrong[d]], values[d][~wrong[d]]).statistic for d in draws]
    areas = [u / (wrong[d].sum() * (~wrong[d]).sum()) for u, d in zip(areas, draws, strict=True)]
    assert found.interval == pytest.approx(tuple(np.percentile(areas, [2.5, 97.5])), abs=0.015)
    assert found.images == len(set(images))


def test_the_interval_is_about_as_wide_as_hanley_and_mcneils_error_says():
    chance = CHANCE(5)
    wrong = chance.random(600) < 0.5
    values = chance.normal(size=600) + wrong
    found = separation([Item(v, bool(w), i) for i, (v, w) in enumerate(zip(values, wrong, strict=True))], CHANCE(0))
    a, m, n = found.area, found.inside, found.outside
    spread_of = a * (1 - a) + (m - 1) * (a / (2 - a) - a * a) + (n - 1) * (2 * a * a / (1 + a) - a * a)
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * 1.96 * math.sqrt(spread_of / (m * n)), rel=0.15)


def test_the_calibration_error_is_the_mean_distance_in_bins_of_equal_count():
    probabilities = [number / 100 for number in range(100)]
    right = [number % 3 == 0 for number in range(100)]
    bins = [range(start, start + 10) for start in range(0, 100, 10)]
    expected = np.mean([abs(np.mean([probabilities[i] - right[i] for i in each])) for each in bins])
    found = calibration(probabilities, right)
    assert found.error == pytest.approx(expected)
    assert (found.n, found.right, found.probability) == (100, pytest.approx(0.34), pytest.approx(0.495))


def test_a_model_that_is_always_sure_and_right_is_calibrated_and_one_that_is_wrong_is_not():
    assert calibration([1.0] * 7, [True] * 7).error == 0
    assert calibration([1.0] * 7, [False] * 7).error == 1
    assert calibration([], []) is None


def test_ranks_correlate_only_where_there_is_something_to_rank():
    assert rank_correlation([1, 2, 3], [10, 20, 900]) == pytest.approx(1)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_a_spread_has_count_mean_and_quartiles():
    assert spread(range(101)) == (101, 50.0, 5.0, 25.0, 50.0, 75.0, 95.0)
    assert spread([]) is None


@given(st.floats(-1e4, 1e4), st.floats(1e-4, 1e4))
def test_an_axis_has_a_few_round_numbers_between_its_ends(low, width):
    ticks = _ticks(low, low + width)
    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-6 <= tick <= low + width + 1e-6 for tick in ticks)


def some_pairs() -> list[PairDiscrepancy]:
    """Two tasks; the student is wrong where the gap is large."""
    chance = random.Random(0)
    return [
        differs(
            number,
            gap=chance.gauss(2 * (number % 2), 1),
            teacher=-0.2,
            divergence=None if number % 5 == 0 else chance.random() / 2,
            task="chartqa" if number % 3 else "textvqa",
            verdict=VerdictKind.TEACHER_ONLY if number % 2 else VerdictKind.BOTH,
            student_right=number % 2 == 0,
            missing={"rationale_gap": "not_asked_for"} | ({"attention_divergence": "x_y"} if number % 5 == 0 else {}),
        )
        for number in range(120)
    ]


def test_the_tables_have_every_count_and_do_not_hang_on_the_order_of_the_pairs():
    those = some_pairs()
    tables = discrepancy_tables(those, ["textvqa", "chartqa"], seed=1)
    gap, attention, rationale, area, together, sure = tables
    assert [row[:2] for row in gap.rows][:2] == [
        ("textvqa", "gap (only the teacher is right)"),
        ("textvqa", "both are right"),
    ]
    assert [row[2:4] for row in gap.rows] == [("20", "20"), ("20", "20"), ("40", "40"), ("40", "40")]
    assert "Known of 96 of 120 pairs; not of the others: 24 x y." in attention.caption
    assert sum(int(row[3]) for row in attention.rows) == 96
    assert (rationale.rows, "Known of 0 of 120 pairs; not of the others: 120 not asked for" in rationale.caption) == (
        [],
        True,
    )
    assert [row[:2] for row in area.rows[:3]] == [
        ("confidence gap", each) for each in ("textvqa", "chartqa", "all tasks")
    ]
    assert all(float(row[2].split()[0]) > 0.8 for row in area.rows[:3])
    assert area.rows[2][3:] == ("60", "60", "120")
    assert [row[3] for row in together.rows] == ["96"]
    assert ("chartqa", "teacher", "0.330", "0.670", "1.000", "80", "0") in sure.rows
    shuffled = random.Random(4).sample(those, len(those))
    again = discrepancy_tables(shuffled, ["textvqa", "chartqa"], seed=1)
    assert [table.rows for table in again if table is not again[3]] == [t.rows for t in tables if t is not area]


def test_on_the_terminal_the_distributions_stand_on_one_axis():
    gap, *_ = discrepancy_tables([differs(number, gap=number / 10) for number in range(101)], [], seed=0)
    assert gap.headings[-1] == "from 0.50 to 9.50"
    assert gap.rows[0][-1] == "-------=========|========-------"
    two = [differs(0, gap=2.0), differs(1, gap=4.0, verdict=VerdictKind.BOTH)]
    assert [row[-1] for row in discrepancy_tables(two, [], seed=0)[0].rows] == ["|" + 31 * ".", 31 * "." + "|"]


def test_a_measure_that_nobody_knows_has_a_sentence_and_no_rows():
    told = measure_table([differs(0, missing=dict.fromkeys(Measure, "teacher_opaque"))], Measure.CONFIDENCE_GAP, [])
    assert told.rows == []
    assert "Known of 0 of 1 pair; not of the others: 1 teacher opaque." in told.caption


# In a run


MADE_OF = ("pairs", "verdicts")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose models were compared: eight pairs of two tasks, two gaps each."""
    monkeypatch.setattr(fake, "BACKEND", Backend(load=fake.load, shows=True))
    picture = draw(tmp_path / "pool" / "1.png", size=(40, 20))
    pairs = [pair(n, ["textvqa", "chartqa"][n // 4], str(picture), HOSTILE if n == 0 else "tea") for n in range(8)]
    kinds = [KINDS[number % 4] if number != 5 else VerdictKind.TEACHER_ONLY for number in range(8)]
    verdicts = [verdict(each, kind) for each, kind in zip(pairs, kinds, strict=True)]
    with RunFolder(tmp_path / "run") as folder:
        fill(folder, "pairs", "pairs.jsonl", pairs)
        made = folder.artifact("verdicts", inputs={}, settings={})
        made.stream("verdicts.jsonl", Verdict).append(verdicts)
        made.stream("gaps.jsonl", Pair).append(
            [p for p, kind in zip(pairs, kinds, strict=True) if kind == "teacher_only"]
        )
        made.finish({})
        made_of = {name: json.loads((folder.path / name / "manifest.json").read_text()) for name in MADE_OF}
        of = {name: manifest_digest(manifest) for name, manifest in made_of.items()}
        plan = {"discrepancy.max_new_tokens": 128, "discrepancy.rationales": False}
        made = folder.artifact("discrepancy", inputs=of, settings=plan)
        write_signals(made, TEACHER, {each: shown(-0.1, spot(3)) for each in pairs})
        write_signals(made, STUDENT, {each: shown(-number, spot(number)) for number, each in enumerate(pairs)})
        write_pair_discrepancies(made, [*map(Judged, pairs, verdicts)])
        made.finish({})
    (tmp_path / "run" / "run.yaml").write_text(
        "run: .\nseed: 3\nteacher: fake:t.json\nstudent: fake:s.json\n"
        f"tasks: {{textvqa: {{images: {tmp_path / 'pool'}}}, chartqa: {{images: {tmp_path / 'pool'}}}}}\n"
        "discrepancy: {weight_by: teacher_confidence}\n"
    )
    return tmp_path / "run"


def fill(folder, name, file, records):
    made = folder.artifact(name, inputs={}, settings={})
    made.stream(file, type(records[0])).append(records)
    made.finish({})


def test_the_command_prints_the_tables_and_the_pairs_that_differ_most(run):
    output = done("discrepancy", run)
    assert "Confidence gap: " in output and "Known of 8 of 8 pairs." in output
    assert "Rationale gap" in output and "8 not asked for" in output
    assert "area under the ROC curve" in output and "all tasks" in output
    first = next(line for line in output.splitlines() if "what is" in line)
    assert "what is 5?" in first and re.search(r"p005 +4\.900 +0\.693 +-", first)


def test_the_list_is_filtered_sorted_cut_and_written_with_pair_discrepancies_and_weight(run, tmp_path):
    out = tmp_path / "list.jsonl"
    said = done("discrepancy", run, "--sort", "attention_divergence", "--out", out)
    assert f"list: {out} (3 pairs)" in said
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["pair_id"] for row in rows] == ["p000", "p004", "p005"]
    assert rows[0]["answer"] == HOSTILE and rows[0]["verdict"] == "teacher_only" and rows[0]["weight"] == 1
    done("discrepancy", run, "--verdict", "both", "--task", "chartqa", "--top", "1", "--out", out)
    assert [json.loads(line)["pair_id"] for line in out.read_text().splitlines()] == ["p007"]


def test_a_task_without_compared_pairs_is_refused_with_the_ones_that_have_some(run):
    assert "Did you mean chartqa? Known: chartqa, textvqa" in refusal("discrepancy", run, "--task", "chatqa")


@pytest.mark.parametrize("gone", ["manifest.json", "pairs.jsonl"])
def test_what_was_not_compared_is_shown_nowhere_and_needs_the_stages_before(run, gone):
    (run / "discrepancy" / gone).unlink()
    assert f"First: parityalign intake {run}" in refusal("discrepancy", run)


def test_rationales_that_are_asked_for_later_are_missing(run):
    text = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(text.replace("weight_by: teacher_confidence", "rationales: true"))
    assert f"First: parityalign intake {run}" in refusal("discrepancy", run)


@pytest.mark.parametrize("made_again", MADE_OF)
def test_what_earlier_pairs_or_verdicts_were_compared_by_is_shown_nowhere(run, made_again):
    assert "How the two models differ" in write_report(run).read_text()
    path = run / made_again / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["more.jsonl"] = {"sha256": "0", "bytes": 0}
    path.write_text(json.dumps(sealed(manifest)))
    assert f"First: parityalign intake {run}" in refusal("discrepancy", run)
    html = write_report(run).read_text()
    assert "How the two models differ" not in html and "Where the" not in html


def test_pairs_that_were_made_again_are_noticed(run):
    lines = (run / "pairs" / "pairs.jsonl").read_text().splitlines(keepends=True)
    (run / "pairs" / "pairs.jsonl").write_text("".join(lines[1:]))
    assert "pairs.jsonl was changed after the run wrote it" in refusal("discrepancy", run)


def test_the_report_shows_the_differences_and_where_both_models_looked(run):
    html = write_report(run).read_text()
    assert "How the two models differ" in html and "confidence_gap-title" in html
    assert HOSTILE not in html and "&lt;script&gt;" in html
    drawn = re.findall(
        r'<svg[^>]*aria-label="Where the (\w+) looked: most at row (\d), column (\d) of 4 \(100 %\)"', html
    )
    assert drawn.count(("teacher", "1", "4")) == 3
    assert {each for each in drawn if each[0] == "student"} == {
        ("student", *rc) for rc in (("1", "1"), ("2", "1"), ("2", "2"))
    }
    assert html.count('href="data:image/') == 3 and html.count('<use href="#picture-p00') == 6
    assert '<rect x="30.0" y="0.0" width="10.0" height="5.0" fill-opacity="0.75">' in html


def test_without_the_comparison_the_report_is_as_before(run):
    for path in (run / "discrepancy").iterdir():
        path.unlink()
    html = write_report(run).read_text()
    assert "How the two models differ" not in html and "<use" not in html and html.count("<img ") == 3


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=5))
def test_every_distribution_can_be_drawn(values):
    those = [differs(number, gap=value) for number, value in enumerate(values)]
    chart = spread_chart("x", "X", spreads(those, Measure.CONFIDENCE_GAP, []))
    assert "nan" not in chart and "inf" not in chart and chart.count("</rect>") == 2
