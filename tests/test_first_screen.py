"""What a manager sees of a run: the first screen of its report in every state, and what was won and lost."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image

from parityalign.core import HeldOutPair, RunFolder, Scores, VerdictKind, part_names
from parityalign.engines import AnswerStore, KnownModel, Spent
from parityalign.report.beside_teacher import Beside, beside_table, beside_teacher, millions
from parityalign.report.curves import curve_charts, curves_in
from parityalign.report.examples import won_and_lost
from parityalign.report.gallery import MOST_BYTES, thumbnail
from parityalign.report.page import write_report
from parityalign.report.summary import summary_of
from parityalign.report.words import in_words
from test_report import SCORES, Page, draw, fill, pair, run, spaceless, squeezed, verdict, written  # noqa: F401

UNKNOWN = Beside(dict.fromkeys(("student", "teacher")), dict.fromkeys(("student", "teacher")), "", "", None)
NOBODY = {"count": 0, "of": 0, "share": None, "ci": None}


def share(count, of):
    return {"count": count, "of": of, "share": count / of, "ci": [count / of - 0.02, count / of + 0.02]}


def held_out(before, after, *, accepted):
    """What 100 held-out pairs say."""
    total = {
        "pairs": 100, "images": 50, "before": share(before, 100), "after": share(after, 100), "p": 0.01,
        "difference": {"score": after - before, "ci": [1.0, 40.0]},
        "gaps_closed": share(max(0, after - before), 100 - before), "lost": NOBODY,
    }  # fmt: skip
    return {"accepted": accepted, "total": total, "tasks": {"textvqa": total}}


def first_screen(folder, scores, beside=UNKNOWN, verdicts=None):
    return summary_of(folder, scores and Scores.model_validate(scores), verdicts or {}, beside)


def test_the_first_screen_has_the_three_models_and_what_was_gained(run):  # noqa: F811
    page = Page(written(run))
    text = squeezed(page.text)
    assert "The student closed 39 % of the gap to its teacher" in text
    for figure in (
        "Student before35.6",
        "Student after56.0",
        "Teacher88.5",
        "+20.4points gained95 % sure: +17.5 to +23.2",
    ):
        assert spaceless(figure) in spaceless(text)
    assert (
        "Without labels, the teacher wrote 4 questions with answers about 4 pictures; the student was trained on 2 "
        in text
    )
    assert "1,600 labelled test questions measured what came of it." in text
    (bar,) = page.all("div", role="img")
    assert bar["aria-label"].startswith("Student before 35.6, Student after 56.0, Teacher 88.5")


def test_without_a_test_split_the_held_out_images_are_the_result(tmp_path):
    found = first_screen(tmp_path, {"tasks": {}, **forgotten(), "held_out": held_out(56, 89, accepted=True)})
    assert found.title == "The student now agrees with its teacher on 89 % of questions"
    assert [figure.value for figure in found.figures.values()] == ["56 %", "89 %", "100 %"]
    assert ("75 %", "of the gaps closed", "33 of 44") in found.facts


def test_a_student_that_was_not_taken_is_not_called_better(tmp_path):
    found = first_screen(tmp_path, {**SCORES, "held_out": held_out(50, 40, accepted=False)})
    assert found.title == "Nothing was gained, so the student was left as it was"
    alone = first_screen(tmp_path, {"tasks": {}, **forgotten(), "held_out": held_out(50, 40, accepted=False)})
    assert not alone.facts and "left as it was" in alone.why
    assert alone.title == found.title and alone.figures["after"].words == "Student when levelled, not taken"


@pytest.mark.parametrize(
    ("gain", "closed", "title"),
    [
        ({"score": -2.0, "ci": [-3.0, -1.0]}, None, "The student lost 2.0 points"),
        ({"score": 2.0, "ci": [-1.0, 5.0]}, 0.1, "The student gained 2.0 points, which may be chance"),
        ({"score": 2.0, "ci": [1.0, 5.0]}, None, "The student gained 2.0 points and is level with its teacher"),
        ({"score": 2.0, "ci": [1.0, 5.0]}, 1.2, "The student gained 2.0 points and is level with its teacher"),
        ({"score": 0.0, "ci": [0.0, 0.0]}, 0.0, "The student scores as before"),
    ],
)
def test_the_title_says_what_happened(tmp_path, gain, closed, title):
    assert first_screen(tmp_path, {**SCORES, "mean_gain": gain, "gap_recovered": closed}).title == title


def test_a_run_that_has_no_scores_yet_has_no_figures(tmp_path):
    begun = first_screen(tmp_path, None, verdicts={"a": {VerdictKind.TEACHER_ONLY: 3}})
    assert begun.title == "No scores yet" and not begun.figures
    learnt = first_screen(tmp_path, None, verdicts={"a": {VerdictKind.STUDENT_RIGHT: 3}})
    assert learnt.title == "There was nothing to learn"


def forgotten():
    return {"forgotten": SCORES["forgotten"]}


@pytest.fixture
def asked(tmp_path):
    """A function that books what the two models took in evaluate, and then compares them."""
    said = {"run": ".", "teacher": "fake:teacher", "student": "fake:student", "tasks": {"textvqa": {"images": "pool"}}}
    (tmp_path / "run.yaml").write_text(json.dumps(said))

    def book(teacher, student):
        store = AnswerStore(tmp_path / "answers.sqlite")
        store.begin_stage("evaluate")
        for name, spent in (("fake:teacher", teacher), ("fake:student", student)):
            store.remember_model(name, KnownModel(name, frozenset()))
            store.keep(name, {}, spent)
        store.close()
        return beside_teacher(tmp_path, None)

    return book


def test_the_speeds_are_those_of_the_run_s_own_answers(asked):
    found = asked(Spent(answers=100, seconds=20.0), Spent(answers=100, seconds=5.0))
    assert (found.faster, found.asked_in, found.why_not) == (4.0, "evaluate", "")


def test_the_time_of_a_server_is_not_compared(asked):
    found = asked(Spent(answers=100, seconds=200.0, requests=100), Spent(answers=100, seconds=5.0))
    assert found.faster is None and found.why_not == "a server's time includes the network and its other load"


def test_a_handful_of_answers_is_no_speed(asked):
    assert asked(Spent(answers=10, seconds=20.0), Spent(answers=10, seconds=5.0)).faster is None


def test_size_and_speed_are_set_beside_the_teacher_s():
    sizes, rates = {"student": 2_000_000, "teacher": 72_000_000_000}, {"student": 30.0, "teacher": 10.0}
    beside = Beside(sizes, rates, "evaluate", "", 0.5)
    assert (beside.smaller, beside.faster) == (36_000.0, 1.5)
    assert [row[-1] for row in beside_table(beside)] == ["36000.0 times smaller", "1.50 times as fast after levelling"]
    assert beside_table(UNKNOWN) == []


def test_a_number_of_parameters_is_said_as_people_do():
    assert [*map(millions, (12, 968_832, 5_700_000, 2_210_000_000, 72_000_000_000, 235_000_000_000))] == [
        "12", "969 thousand", "5.7 million", "2.2 billion", "72.0 billion", "235 billion",
    ]  # fmt: skip


QUESTIONS = [("won", "yes", "no", "yes"), ("lost", "yes", "yes", "no"), ("same", "yes", "no", "maybe")]


@pytest.fixture
def answered(run):  # noqa: F811
    """The run with three test questions: one won, one lost, one as wrong as before."""
    folder = run / "tests" / "textvqa"
    folder.mkdir(parents=True)
    picture = draw(run.parent / "test" / "1.png", "yes")
    lines = [
        {"question_id": name, "image": str(picture), "question": f"Is it {name}?", "answers": [right] * 10}
        for name, right, _, _ in QUESTIONS
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "answers").mkdir()
    for who, place in (("before", 2), ("after", 3), ("teacher", 1)):
        said = [{"item_id": f"textvqa:{each[0]}", "text": each[place]} for each in QUESTIONS]
        (run / "answers" / f"{who}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    return run


def test_questions_won_and_lost_are_shown_with_their_pictures(answered):
    page = Page(written(answered))
    text = squeezed(page.text)
    assert "Is it won?" in text and "Is it lost?" in text and "Is it same?" not in text
    assert text.count("1 of 1 test questions, drawn from all tasks with seed 7.") == 2
    assert "rightyesbeforenoafteryesteacheryes" in spaceless(text)
    assert len(page.all("img")) == 3  # with that of the gap
    assert text.index("Is it won?") < text.index("Each task by its own metric")


def test_a_year_that_is_nearly_right_is_won_once_it_is_right(answered):
    """As the score has it: a metric that knows which answers are exact is told."""
    scores = json.loads((answered / "scores.json").read_text())
    scores["tasks"]["textvqa"]["metric"] = "chartqapro_relaxed_accuracy"
    file = answered / "tests" / "textvqa" / "questions.jsonl"
    row = json.loads(file.read_text().splitlines()[0]) | {"question_id": "year", "answers": ["2020"], "exact": [True]}
    file.write_text(json.dumps(row) + "\n")
    for who, text in (("before", "2019"), ("after", "2020")):
        (answered / "answers" / f"{who}.jsonl").write_text(json.dumps({"item_id": "textvqa:year", "text": text}) + "\n")
    found = won_and_lost(answered, Scores.model_validate(scores), ["textvqa"], seed=0)
    assert (found.won_count, found.lost_count) == (1, 0)


def test_every_metric_of_ours_has_a_name_for_readers():
    assert all(in_words(name) != name.replace("_", " ") for name in part_names("metrics"))


def test_without_test_questions_held_out_pairs_are_shown(run):  # noqa: F811
    (run / "scores.json").unlink()
    told = [
        HeldOutPair(
            pair_id=f"textvqa-{n}", image_id="", task="textvqa", right_before=n == 2, right_after=True, text=text
        )
        for n, text in ((1, "now"), (2, "as ever"))
    ]
    (run / "student" / "manifest.json").unlink()
    (run / "student" / "held_out.jsonl").write_text("".join(each.model_dump_json() + "\n" for each in told))
    text = squeezed(Page(written(run)).text)
    assert "1 of 1 pairs on held-out images" in text and "afternow" in spaceless(text) and "as ever" not in text
    assert "None of the pairs on held-out images." in text


def test_every_section_can_be_reached_from_the_contents(answered):
    page = Page(written(answered))
    anchors = [got["id"] for got in page.all("section")]
    linked = [got["href"].removeprefix("#") for got in page.all("a") if got["href"].startswith("#")]
    assert [link for link in linked if link != anchors[0]] == anchors[1:]
    assert len(page.all("h1")) == 1 and len(page.all("h2")) == len(anchors)


def test_sixty_pictures_of_the_worst_kind_stay_below_three_megabytes(tmp_path):
    gaps = []
    for n in range(3):
        path = tmp_path / f"{n}.png"
        Image.frombytes("RGB", (400, 400), random.Random(n).randbytes(400 * 400 * 3)).save(path)
        gaps.append(pair(n, image=path))
    found = thumbnail(Path(gaps[0].image))
    assert len(found.uri) <= MOST_BYTES and max(found.size) == 320
    verdicts = [verdict(each, VerdictKind.TEACHER_ONLY) for each in gaps]
    with RunFolder(tmp_path / "run") as folder:
        fill(folder, "pairs", {"pairs.jsonl": gaps})
        fill(folder, "verdicts", {"verdicts.jsonl": verdicts, "gaps.jsonl": gaps})
    (tmp_path / "run" / "run.yaml").write_text("seed: 1\n")
    page = write_report(tmp_path / "run")
    assert len(Page(page.read_text()).all("img")) == 3
    around = page.stat().st_size - 3 * len(found.uri)
    assert 60 * MOST_BYTES + 10 * around < 3_000_000


def measured(what, *values):
    return [{"event": "measured", "what": f"level {what}", "step": step, "value": value} for step, value in values]


def test_the_curve_of_the_training_is_drawn_with_its_speed_and_rate(run):  # noqa: F811
    events = [
        *measured("held-out loss", (0, 2.0), (8, 0.5)),
        *measured("examples a second", (4, 31.0), (8, 29.0)),
        *measured("learning rate", (4, 1e-3), (8, 0.0)),
    ]
    assert [*curves_in(events)["examples a second"].values()] == [31.0, 29.0]
    assert len(curve_charts(curves_in(events))) == 3
    with (run / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    text = squeezed(Page(written(run)).text)
    assert "held-out loss: from 2 to 0.5." in text and "examples a second: from 31 to 29." in text


def test_codes_are_said_in_words_and_unknown_ones_without_underscores():
    assert in_words("in_test_split") == "also in a test split"
    assert in_words("of_a_guest") == "of a guest"


def test_hostile_file_names_are_no_part_of_a_link(run):  # noqa: F811
    links = {got["href"] for got in Page(written(run)).all("a")}
    assert Path("verdicts/gaps.jsonl").as_posix() in links and not any(":" in link for link in links)
