"""Scores: the right answers win, counts travel along, and intervals and p values mean what they say."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from makers import artifact, content, kept, mute, task
from parityalign.config.schema import EvaluateSettings
from parityalign.core.records import Answer, Question
from parityalign.core.results import Scores
from parityalign.engines import AnswerStore, CachedModel, cached
from parityalign.metrics._statistics import (
    cluster_sums,
    paired_difference,
    percentile_interval,
    resampled_means,
    sign_flip_p,
)
from parityalign.models.backends.fake import FakeModel
from parityalign.stages.evaluate import Models, evaluate_models, score_run_answers, write_scores
from parityalign.tasks import load_task

CHANCE = np.random.default_rng


# Intervals and the paired test, against independent computations


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=30))
def test_cluster_sums_are_sums_by_image(rows):
    clusters, values = zip(*rows, strict=True)
    sums, sizes = cluster_sums(np.array([[value, 2 * value] for value in values]), clusters)
    names = list(dict.fromkeys(clusters))
    for place, name in enumerate(names):
        own = [value for cluster, value in rows if cluster == name]
        assert sizes[place] == len(own) and sums[place] == pytest.approx([sum(own), 2 * sum(own)])
    assert len(sums) == len(names)


def interval(values, clusters=None, resamples=4000, seed=0):
    clusters = range(len(values)) if clusters is None else clusters
    sums, sizes = cluster_sums(np.asarray(values, dtype=float)[:, None], list(clusters))
    return percentile_interval(resampled_means(sums, sizes, resamples=resamples, rng=CHANCE(seed))[:, 0])


def test_with_one_question_an_image_the_interval_is_the_ordinary_bootstrap():
    values = CHANCE(1).beta(2, 1, size=200)
    ours = interval(values, resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=CHANCE(2))
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.003)


def test_it_agrees_with_the_normal_approximation_of_a_ratio_of_sums():
    chance = CHANCE(3)
    sizes = chance.integers(1, 5, size=400)
    level = chance.random(400)
    values = np.concatenate([chance.random(size) < rate for size, rate in zip(sizes, level, strict=True)])
    clusters = np.repeat(np.arange(400), sizes)
    mean = values.mean()
    residuals = np.bincount(clusters, weights=values - mean)
    error = np.sqrt((residuals**2).sum()) / sizes.sum()
    low, high = interval(values, clusters)
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.01)


def test_questions_that_share_an_image_widen_the_interval():
    values = np.repeat(CHANCE(4).random(100) < 0.5, 5)
    low, high = interval(values, np.repeat(np.arange(100), 5))
    naive_low, naive_high = interval(values)
    assert (high - low) / (naive_high - naive_low) == pytest.approx(np.sqrt(5), rel=0.15)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    chance, covered, worlds = CHANCE(5), 0, 300
    for world in range(worlds):
        level = chance.beta(2, 2, size=80)  # the truth is 0.5
        values = (chance.random((80, 3)) < level[:, None]).ravel()
        low, high = interval(values, np.repeat(np.arange(80), 3), resamples=400, seed=world)
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / worlds <= 0.98


def test_a_single_image_has_an_interval_without_width():
    assert interval([0, 1, 1], [7, 7, 7]) == pytest.approx((2 / 3, 2 / 3))


def test_draws_in_several_portions_equal_one_draw_in_distribution(monkeypatch):
    values = CHANCE(6).random(50)
    whole = interval(values, resamples=8000)
    monkeypatch.setattr("parityalign.metrics._statistics._CELLS", 300)
    assert interval(values, resamples=8000) == pytest.approx(whole, abs=0.01)
    assert sign_flip_p(values - 0.45, permutations=2000, rng=CHANCE(0)) == pytest.approx(
        stats.ttest_1samp(values, 0.45).pvalue, abs=0.05
    )


def test_a_paired_difference_is_that_of_scipy_with_one_question_an_image_and_turns_with_the_models():
    values = CHANCE(8).normal(0.15, 1, size=200)
    found = paired_difference(values, range(200), resamples=20_000, permutations=20_000, rng=CHANCE(0))
    theirs = stats.ttest_1samp(values, 0)
    assert found.mean == pytest.approx(values.mean())
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval()), abs=0.02)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)
    turned = paired_difference(-values, range(200), resamples=20_000, permutations=20_000, rng=CHANCE(0))
    assert turned.p == found.p and turned.interval == pytest.approx((-found.interval[1], -found.interval[0]))


def exact_p(differences):
    """By writing out every assignment of signs."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return np.mean([each >= observed - 1e-9 for each in sums])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.6, -0.3, 0.0, 0.1, 0.3, 0.7, 1.0]), min_size=1, max_size=9))
def test_the_p_value_is_that_of_all_sign_assignments(differences):
    p = sign_flip_p(np.array(differences), permutations=20_000, rng=CHANCE(0))
    assert p == pytest.approx(exact_p(differences), abs=0.02)


def test_the_p_value_agrees_with_scipy_and_does_not_hang_on_which_model_came_first():
    differences = CHANCE(7).normal(0.3, 1, size=40)
    p = sign_flip_p(differences, permutations=20_000, rng=CHANCE(0))
    theirs = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=20_000, rng=CHANCE(1)
    )
    assert p == pytest.approx(theirs.pvalue, abs=0.015)
    assert sign_flip_p(-differences, permutations=20_000, rng=CHANCE(0)) == p


def test_equal_models_have_p_1_and_the_smallest_p_is_never_0():
    assert sign_flip_p(np.zeros(5), permutations=100, rng=CHANCE(0)) == 1
    assert sign_flip_p(np.ones(200), permutations=999, rng=CHANCE(0)) == 0.001


def test_under_no_difference_small_p_values_are_as_rare_as_they_should_be():
    chance = CHANCE(8)
    values = [
        sign_flip_p(chance.integers(-1, 2, size=30).astype(float), permutations=200, rng=chance) for _ in range(400)
    ]
    assert np.mean(np.array(values) <= 0.05) <= 0.08


# The stage


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A file for each picture that is asked about; models are fake and look at none."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(400):
        (folder / f"{number}.png").write_text(f"picture {number}")
    return folder


@pytest.fixture(autouse=True)
def among_pictures(pictures, monkeypatch):
    monkeypatch.chdir(pictures)


def questions(count, *, per_image=1, subset=lambda number: "", right="tea"):
    return [
        Question(
            question_id=str(number),
            image=f"{number // per_image}.png",
            question=f"What is {number}?",
            answers=(right,),
            subset=subset(number),
        )
        for number in range(count)
    ]


def knows(share, name="fake"):
    """A model that is right on the first `share` of every 100 questions, and the requests that it saw."""

    def reply(request, decoding):
        assert decoding.temperature == 0
        number = int(request.prompt.split()[2].rstrip("?"))
        return "tea" if number % 100 < share else "milk"

    return FakeModel(reply, name=name)


def run(folder, tests, tasks, before=40, after=70, teacher=90, progress=mute, models=None, **options):
    chosen = EvaluateSettings(**({"resamples": 400, "batch_size": 32} | options))
    made = artifact(folder, "answers", **options)
    shares = {"before": before, "after": after, "teacher": teacher}
    models = models or {name: knows(share, name) for name, share in shares.items()}
    asked = Models(**{name: kept(folder, model) for name, model in models.items()})
    evaluate_models(made, tests, tasks, asked, settings=chosen, seed=0, progress=progress)
    return made, score_run_answers(made, tests, tasks, settings=chosen, seed=0)


def test_scores_are_per_cent_with_counts_and_intervals_around_them(tmp_path):
    tests = {"toy": questions(200, per_image=2)}
    _, scores = run(tmp_path, tests, {"toy": task()})
    toy = scores.tasks["toy"]
    assert (toy.n, toy.images, toy.metric) == (200, 100, "exact")
    assert [toy.before.score, toy.after.score, toy.teacher.score, toy.gain.score] == [40, 70, 90, 30]
    for estimate in (toy.before, toy.after, toy.teacher, toy.gain):
        assert estimate.ci[0] < estimate.score < estimate.ci[1]
    assert (toy.improved, toy.worsened) == (60, 0) and toy.gain.p < 0.001
    known = scores.forgotten.questions
    assert (known.total.had_right, known.total.lost) == (80, 0) and known.tasks == {"toy": known.total}
    assert toy.paper_metric.model_dump() == {"before": 40, "after": 70, "teacher": 90}
    assert scores.mean_gain.score == 30 and scores.gap_recovered == 0.6 and scores.not_scored == []


def test_questions_that_were_right_before_and_are_wrong_after_are_forgotten(tmp_path):
    tests = {"one": questions(200, per_image=2), "two": questions(50)}
    _, scores = run(tmp_path, tests, {"one": task("one"), "two": task("two")}, before=70, after=40)
    known = scores.forgotten.questions
    assert {name: (part.had_right, part.lost) for name, part in known.tasks.items()} == {
        "one": (140, 60),
        "two": (50, 10),
    }
    assert (known.total.had_right, known.total.lost) == (190, 70)
    assert known.tasks["one"].ci[0] < known.tasks["one"].share < known.tasks["one"].ci[1]
    assert scores.tasks["one"].worsened == 60 and scores.forgotten.pairs is None


def test_every_model_gets_every_question_with_the_answer_prompt(tmp_path):
    made, _ = run(tmp_path, {"toy": questions(3)}, {"toy": task()})
    for name in ("before", "after", "teacher"):
        assert [answer.item_id for answer in made.stream(f"{name}.jsonl", Answer)] == ["toy:0", "toy:1", "toy:2"]
    assert made.manifest["counts"] == {"questions": 3, "not_asked": 0}


def test_the_official_metric_decides_and_the_paper_metric_stands_beside_it(tmp_path):
    tests = {"okvqa": [Question(question_id="1", image="0.png", question="What is 0?", answers=("te",) * 10)]}
    _, scores = run(tmp_path, tests, {"okvqa": load_task("okvqa")})
    okvqa = scores.tasks["okvqa"]
    assert okvqa.metric == "vqa_accuracy_official"
    assert okvqa.before.score == 0 and okvqa.paper_metric.before == 100


def test_subsets_are_scored_on_their_own(tmp_path):
    tests = {"toy": questions(200, subset=lambda number: "human" if number < 100 else "augmented")}
    _, scores = run(tmp_path, tests, {"toy": task()})
    subsets = scores.tasks["toy"].subsets
    assert list(subsets) == ["human", "augmented"]
    assert all(part.n == 100 and part.before.score == 40 and part.gain.score == 30 for part in subsets.values())


def test_the_mean_gain_is_the_unweighted_mean_and_narrower_than_its_parts(tmp_path):
    tests = {"one": questions(100), "two": questions(400)}
    tasks = {"one": task("one"), "two": task("two"), "three": task("three")}
    _, scores = run(tmp_path, tests, tasks, resamples=2000)
    widths = [part.gain.ci[1] - part.gain.ci[0] for part in scores.tasks.values()]
    mean_width = scores.mean_gain.ci[1] - scores.mean_gain.ci[0]
    assert scores.mean_gain.score == 30
    assert mean_width == pytest.approx(np.sqrt(widths[0] ** 2 + widths[1] ** 2) / 2, rel=0.1)
    assert scores.not_scored == ["three"]


def test_a_student_that_was_left_as_it_is_answers_once_and_gains_nothing(tmp_path):
    student = knows(40, "student")
    models = {"before": student, "after": student, "teacher": knows(90, "teacher")}
    made, scores = run(tmp_path, {"toy": questions(50)}, {"toy": task()}, models=models)
    assert len(student.asked) == 50
    assert (made.path / "after.jsonl").read_bytes() == (made.path / "before.jsonl").read_bytes()
    gain = scores.tasks["toy"].gain
    assert (gain.score, gain.ci, gain.p) == (0, (0, 0), 1)


def test_gap_recovered_is_unknown_where_the_teacher_is_not_ahead(tmp_path):
    _, scores = run(tmp_path, {"toy": questions(100)}, {"toy": task()}, teacher=40)
    assert scores.gap_recovered is None and scores.mean_gain.score == 30


def test_without_any_test_split_nothing_is_scored_and_nobody_is_loaded(tmp_path):
    made = artifact(tmp_path, "answers")
    nobody = CachedModel("nobody", lambda: pytest.fail("a model was loaded"), AnswerStore())
    options = {"settings": EvaluateSettings(), "seed": 0}
    evaluate_models(made, {}, {"toy": task()}, Models(nobody, nobody, nobody), progress=mute, **options)
    scores = score_run_answers(made, {}, {"toy": task()}, **options)
    assert (scores.tasks, scores.mean_gain, scores.gap_recovered, scores.not_scored) == ({}, None, None, ["toy"])
    assert scores.forgotten.questions.total.had_right == 0


def test_a_limit_takes_a_seeded_part_of_each_split(tmp_path):
    tests = {"toy": questions(300, subset=lambda number: "a" if number < 150 else "b")}
    made, scores = run(tmp_path, tests, {"toy": task()}, limit=60)
    asked = [answer.item_id for answer in made.stream("before.jsonl", Answer)]
    assert scores.tasks["toy"].n == len(asked) == 60
    assert asked == sorted(asked, key=lambda item: int(item.partition(":")[2]))
    assert {part.n for part in scores.tasks["toy"].subsets.values()} != {60}
    _, everything = run(tmp_path / "all", tests, {"toy": task()}, limit=1000)
    assert everything.tasks["toy"].n == 300


def test_a_question_with_a_special_token_is_not_asked_but_counted_and_wrong(tmp_path):
    tests = {"toy": [*questions(1), questions(1)[0].model_copy(update={"question_id": "x", "question": "<image> 0?"})]}
    made = artifact(tmp_path, "answers")
    teacher = FakeModel(lambda *_: "tea", special_tokens=frozenset({"<image>"}))
    models = Models(*[cached(teacher)] * 3)
    options = {"settings": EvaluateSettings(), "seed": 0}
    evaluate_models(made, tests, {"toy": task()}, models, progress=mute, **options)
    scores = score_run_answers(made, tests, {"toy": task()}, **options)
    assert made.manifest["counts"] == {"questions": 2, "not_asked": 2}
    assert scores.tasks["toy"].teacher.score == 50


def test_scores_json_has_the_documented_shape_and_the_report_reads_it(tmp_path):
    _, scores = run(tmp_path, {"toy": questions(100)}, {"toy": task()})
    path = tmp_path / "scores.json"
    write_scores(path, scores)
    read = json.loads(path.read_text())
    toy = read["tasks"]["toy"]
    assert {"metric", "n", "before", "after", "teacher", "gain", "paper_metric"} <= toy.keys()
    assert toy["before"].keys() == {"score", "ci"} and toy["gain"].keys() == {"score", "ci", "p"}
    assert len(toy["gain"]["ci"]) == 2 and toy["paper_metric"].keys() == {"before", "after", "teacher"}
    assert read["mean_gain"].keys() == {"score", "ci"} and isinstance(read["gap_recovered"], float)
    assert Scores.model_validate(read).tasks["toy"].gain.p == toy["gain"]["p"]


def test_scores_say_how_many_questions_the_file_has_and_why_some_are_not_scored(tmp_path):
    tests, tasks = {"toy": questions(300)}, {"toy": task()}
    made, scores = run(tmp_path, tests, tasks, limit=60)
    assert scores.tasks["toy"].coverage.model_dump() == {
        "questions": 300,
        "scored": 60,
        "not_scored": {"over_limit": 240},
    }
    left_out = {"toy": {"missing_image": 3, "no_answers": 0}, "other": {"missing_image": 1}}
    chosen = EvaluateSettings(limit=1000, resamples=100)
    asked = {"toy": asked_of(made, tests["toy"])}
    scores = score_run_answers(made, asked, tasks, settings=chosen, seed=0, left_out=left_out)
    assert scores.tasks["toy"].coverage.model_dump() == {
        "questions": 63,
        "scored": 60,
        "not_scored": {"missing_image": 3},
    }


def asked_of(made, questions):
    """Those of the questions that were asked."""
    asked = {answer.item_id for answer in made.stream("before.jsonl", Answer)}
    return [question for question in questions if f"toy:{question.question_id}" in asked]


def test_the_same_scores_are_not_written_again(tmp_path):
    _, scores = run(tmp_path, {"toy": questions(20)}, {"toy": task()})
    path = tmp_path / "scores.json"
    write_scores(path, scores)
    written = path.stat().st_mtime_ns
    _, again = run(tmp_path, {"toy": questions(20)}, {"toy": task()})
    write_scores(path, again)
    assert path.stat().st_mtime_ns == written
    write_scores(path, again.model_copy(update={"gap_recovered": None}))
    assert json.loads(path.read_text())["gap_recovered"] is None


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("killed_at", [("before", 1), ("after", 0), ("after", 2), ("teacher", 2)])
@pytest.mark.parametrize("left", ["nothing", "a torn file", "files without an end mark"])
def test_a_killed_evaluation_continues_to_the_same_bytes_and_asks_nothing_twice(tmp_path, killed_at, left):
    tests, tasks = {"toy": questions(50)}, {"toy": task()}
    run(tmp_path / "whole", tests, tasks, batch_size=16)
    models = {"before": knows(40, "before"), "after": knows(70, "after"), "teacher": knows(90, "teacher")}

    def kill(step, done, total):
        if step == f"evaluate {killed_at[0]}" and done >= 16 * killed_at[1]:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "killed", tests, tasks, progress=kill, models=models, batch_size=16)
    if left == "a torn file":
        (tmp_path / f"killed/answers/{killed_at[0]}.jsonl").write_text('{"item_id": "toy:0", "te')
    elif left == "files without an end mark":
        for file in (tmp_path / "whole/answers").glob("*.jsonl"):
            (tmp_path / "killed/answers" / file.name).write_bytes(file.read_bytes())
    run(tmp_path / "killed", tests, tasks, models=models, batch_size=16)
    assert content(tmp_path / "killed/answers") == content(tmp_path / "whole/answers")
    assert [len({request.prompt for request in model.asked}) for model in models.values()] == [50] * 3
    assert [len(model.asked) for model in models.values()] == [50] * 3
