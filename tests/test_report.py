"""The report is written from run folders made by hand, with pictures drawn here and hostile model text."""

import base64
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from parityalign.core import RunFolder
from parityalign.core.errors import UserError
from parityalign.core.records import Answer, ImageRef, Pair, Rejected, Reply, Verdict, VerdictKind
from parityalign.core.results import Scores
from parityalign.report.charts import element, score_chart, verdict_chart
from parityalign.report.gallery import choose_gaps, thumbnail
from parityalign.report.page import write_report
from parityalign.report.tables import coverage_table, estimate_cell, headline, paper_table, part_table, score_table

HOSTILE = '<script>alert("x")</script>'
NOTHING_LOST = {"had_right": 0, "images": 0, "lost": 0, "share": None, "ci": None}
SCORES = {
    "tasks": {
        "textvqa": {
            "metric": "textvqa_accuracy",
            "n": 1200,
            "before": {"score": 31.25, "ci": [28.0, 34.5]},
            "after": {"score": 62.0, "ci": [58.9, 65.1]},
            "teacher": {"score": 91.0, "ci": [89.4, 92.6]},
            "gain": {"score": 30.75, "ci": [27.2, 34.1], "p": 0.0005},
            "paper_metric": {"before": 35.0, "after": 66.0, "teacher": 93.5},
        },
        "chartqa": {
            "metric": "chartqa_relaxed_accuracy",
            "n": 400,
            "before": {"score": 40.0, "ci": [36.0, 44.0]},
            "after": {"score": 50.0, "ci": [46.0, 54.0]},
            "teacher": {"score": 86.0, "ci": [83.0, 89.0]},
            "gain": {"score": 10.0, "ci": [5.5, 14.5], "p": 0.02},
            "paper_metric": {"before": 42.0, "after": 53.0, "teacher": 88.0},
        },
    },
    "mean_gain": {"score": 20.4, "ci": [17.5, 23.2]},
    "gap_recovered": 0.3866,
    "forgotten": {
        "questions": {"tasks": {}, "total": {"had_right": 0, "images": 0, "lost": 0, "share": None, "ci": None}}
    },
}
for task in SCORES["tasks"].values():
    task |= {"images": task["n"], "coverage": {"questions": task["n"], "scored": task["n"]}}
SCORED = Scores.model_validate(SCORES)
CONTROLS = {
    "controls": [
        {
            "name": "gaps only",
            "description": "gaps without replay",
            "pairs": 480,
            "steps": 24,
            "tasks": {"textvqa": {"score": 44.4, "ci": [41.0, 47.8]}},
            "mean": {"score": 44.4},
            "mean_gain": {"score": 8.8, "ci": [6.0, 11.6]},
            "run_ahead": {"score": 11.6, "ci": [9.9, 13.3]},
        }
    ],
    "gap_precision": {"share": 0.93, "n": 1000, "right": 930},
}


class Page(HTMLParser):
    """What a browser would see: the tags with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag, **wanted):
        return [got for name, got in self.tags if name == tag and wanted.items() <= got.items()]


def draw(path, word="stop", size=(120, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size, "navy")
    ImageDraw.Draw(picture).text((10, 10), word, fill="white")
    picture.save(path)
    return path


def pair(number, task="textvqa", image="nowhere.png", question="What does the sign say?"):
    return Pair(
        pair_id=f"{task}-{number}",
        image_id=f"image-{number}",
        image=str(image),
        task=task,
        question=question,
        answer=f"answer {number}",
        teacher="fake:teacher",
    )


def verdict(of, kind, student="student says", teacher="teacher says"):
    return Verdict(pair_id=of.pair_id, verdict=kind, reason="because", student_text=student, teacher_text=teacher)


def fill(run, name, streams, counts=(), **facts):
    artifact = run.artifact(name, inputs={}, settings={})
    for file, records in streams.items():
        artifact.stream(file, type(records[0])).append(records)
    artifact.finish(dict(counts), **facts)


@pytest.fixture
def run(tmp_path):
    """A finished run: two tasks, two gaps (one with a sound picture), one broken image."""
    with RunFolder(tmp_path / "small") as folder:
        folder.event("started")
        write_stages(folder, draw(tmp_path / "pool" / "1.png"))
    (folder.path / "scores.json").write_text(json.dumps(SCORES))
    (folder.path / "run.yaml").write_text(
        "seed: 7\nteacher: fake:teacher\nstudent: fake:student\ntasks: {textvqa: {}, chartqa: {}}\n"
    )
    return folder.path


def write_stages(folder, picture):
    pairs = [pair(1, image=picture, question=HOSTILE), pair(2), pair(3, "chartqa"), pair(4, "chartqa")]
    images = [ImageRef(image_id=p.image_id, path=p.image, task=p.task) for p in pairs]
    replies = [
        Reply(reply_id=p.pair_id, image_id=p.image_id, task=p.task, raw="", outcome="ok", pair_id=p.pair_id)
        for p in pairs
    ]
    unread = Reply(reply_id="r5", image_id="image-1", task="textvqa", raw="hm", outcome="no_answer")
    broken = Rejected(path="pool/<b>.png", task="textvqa", reason="truncated", detail="cut off")
    verdicts = [
        verdict(pairs[0], VerdictKind.TEACHER_ONLY, student=HOSTILE),
        verdict(pairs[1], VerdictKind.STUDENT_RIGHT, teacher=None),
        verdict(pairs[2], VerdictKind.TEACHER_ONLY, student=""),
        verdict(pairs[3], VerdictKind.DROPPED),
    ]
    fill(folder, "images", {"accepted.jsonl": images, "quarantine.jsonl": [broken]}, {"accepted": 4})
    fill(folder, "pairs", {"replies.jsonl": [*replies, unread], "pairs.jsonl": pairs}, {"replies": 5, "pairs": 4})
    fill(folder, "verdicts", {"verdicts.jsonl": verdicts, "gaps.jsonl": [pairs[0], pairs[2]]})
    counts = {"gaps": 2, "replay": 1, "held_out": 1, "training": 3}
    fill(folder, "student", {}, counts, result={"steps": 12, "best_step": 9, "held_out_loss_before": 2.5})


def spaceless(text):
    return text.replace(" ", "")


def written(run):
    return write_report(run).read_text(encoding="utf-8")


def squeezed(text):
    return " ".join(text.split())


def test_the_report_lies_in_the_run_folder_and_says_the_result_in_one_sentence(run):
    assert write_report(run) == run / "report.html"
    page = Page(written(run))
    assert (
        "The student gained 20.4 points on average [17.5, 23.2], 39 % of the distance to the teacher, "
        "on 1,600 questions." in squeezed(page.text)
    )
    assert "fake:teacher" in page.text
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", page.text)


def test_model_text_cannot_bring_in_markup(run):
    html = written(run)
    assert HOSTILE not in html
    page = Page(html)
    assert not page.all("script") and not page.all("b")
    # The question of one pair, twice in the tables of questions, and the student's answer to it.
    assert page.text.count(HOSTILE) == 4


def test_hostile_names_of_tasks_and_metrics_are_escaped_in_the_picture_too(run):
    scores = json.loads(json.dumps(SCORES).replace("textvqa", "<script>a").replace("anls", "<b>"))
    (run / "scores.json").write_text(json.dumps(scores))
    assert not Page(written(run)).all("script")


def test_the_page_needs_no_other_file_and_no_network(run):
    page = Page(written(run))
    shown = [got["src"] for _, got in page.tags if "src" in got]
    assert shown and all(address.startswith("data:image/") for address in shown)
    anchors = {got["id"] for _, got in page.tags if "id" in got}
    for link in {got["href"] for got in page.all("a")}:  # to a place on the page, or to a file of the run
        assert link[1:] in anchors if link.startswith("#") else (run / link).is_file(), link
    assert not page.all("link")
    assert "url(" not in written(run) and "@import" not in written(run)
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy[0]["content"].startswith("default-src 'none'")


def test_every_count_of_the_flow_is_shown(run):
    text = squeezed(Page(written(run)).text)
    for part in (
        "images 5 accepted 4 set aside: truncated 1",
        "replies of the teacher 5 became a pair 4 no answer in it 1",
        "pairs 4 textvqa 2 chartqa 2",
        "verdicts 4 gap (only the teacher is right) 2 the student is right 1 dropped: because 1",
        "trained on 3 gaps 2 held out 1 replay 1 steps 12 best step 9 held out loss before 2.500",
        "questions scored 1,600 textvqa 1,200 chartqa 400",
    ):
        assert spaceless(part) in spaceless(text), part


def test_the_models_of_the_run_are_named_with_the_second_teacher_and_their_commits(run):
    assert "teacher fake:teacher, student fake:student" in squeezed(Page(written(run)).text)
    with (run / "run.yaml").open("a") as file:
        file.write("verify: {second_teacher: 'hf:o/n'}\n")
        file.write("loading: {second_teacher: {commit: 0123456789abcdef}, student: {}}\n")
    told = "teacher fake:teacher, second teacher hf:o/n at 0123456789ab, student fake:student"
    assert told in squeezed(Page(written(run)).text)


def test_terminal_and_page_show_the_same_strings(run):
    text = spaceless(squeezed(Page(written(run)).text))
    for row in [*score_table(SCORED), *paper_table(SCORED)]:
        assert spaceless("".join(row)) in text


def test_a_gap_shows_its_picture_its_answer_and_what_both_models_said(run):
    page = Page(written(run))
    (picture,) = page.all("img")
    header, _, body = picture["src"].partition(",")
    assert header in ("data:image/png;base64", "data:image/jpeg;base64")
    assert Image.open(BytesIO(base64.b64decode(body))).size == (120, 80)
    text = squeezed(page.text)
    assert "2 of 2, drawn from all tasks with seed 7" in text
    assert "The image is missing or cannot be read:" in text
    assert "answeranswer3teacherteachersaysstudentemptyanswer" in spaceless(text)


def test_controls_are_shown_where_they_were_run(run):
    assert "Controls" not in Page(written(run)).text
    (run / "controls.json").write_text(json.dumps(CONTROLS))
    text = squeezed(Page(written(run)).text)
    assert "gaps without replay" in text and "44.4[41.0, 47.8]" in text and "+8.8[+6.0, +11.6]" in text
    assert "run is ahead by" in text and "+11.6[+9.9, +13.3]" in text
    assert "93 % of the gaps (930 of 1,000) are true" in text


def test_settings_and_seed_are_shown(run):
    text = Page(written(run)).text
    assert "student: fake:student\ntasks: {textvqa: {}, chartqa: {}}" in text
    assert "Seed of the run: 7." in text


def test_only_the_first_fifty_quarantined_images_are_listed(tmp_path):
    many = [Rejected(path=f"pool/{i:03}.png", task="textvqa", reason="zero_bytes") for i in range(120)]
    with RunFolder(tmp_path / "run") as folder:
        fill(folder, "images", {"quarantine.jsonl": many})
    text = Page(written(tmp_path / "run")).text
    assert "pool/049.png" in text and "pool/050.png" not in text
    assert "And 70 more" in text


def test_what_is_not_there_yet_is_left_out_with_a_sentence(tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 1\n")
    text = squeezed(Page(written(tmp_path)).text)
    assert text.count("There are no scores") >= 2
    assert text.count("This stage has not run yet.") == 4
    assert "Level has not finished yet." in text
    assert "identify has not run yet" in text and "Intake has not finished yet." in text


def test_a_run_without_a_test_split_shows_everything_but_scores(run):
    (run / "scores.json").unlink()
    page = Page(written(run))
    assert "no task of this run has a test split" in page.text
    assert "substring" not in page.text
    assert page.all("img") and len(page.all("svg")) == 1


def test_answers_are_counted_while_they_wait_for_their_scores(run):
    (run / "scores.json").unlink()
    (run / "answers").mkdir()
    answers = [Answer(item_id=str(i), text="yes").model_dump_json() for i in range(1234)]
    (run / "answers" / "before.jsonl").write_text("\n".join(answers) + "\n")
    text = squeezed(Page(written(run)).text)
    assert "questionsscoredanswered:before1,234Therearenoscoresyet." in spaceless(text)


def test_a_run_without_gaps_says_so(tmp_path):
    right = pair(1)
    with RunFolder(tmp_path / "run") as folder:
        fill(folder, "pairs", {"pairs.jsonl": [right]})
        fill(folder, "verdicts", {"verdicts.jsonl": [verdict(right, VerdictKind.STUDENT_RIGHT)]})
    (tmp_path / "run" / "run.yaml").write_text("seed: 1\n")
    text = Page(written(tmp_path / "run")).text
    assert "No gaps were found, so there was nothing to train on" in text


def test_a_stage_that_was_cut_off_is_counted_up_to_its_last_whole_line(run):
    (run / "pairs" / "manifest.json").unlink()
    with (run / "pairs" / "pairs.jsonl").open("a") as file:
        file.write('{"pair_id": "to')
    text = squeezed(Page(written(run)).text)
    assert "This stage has not finished yet." in text
    assert "pairs4" in spaceless(text)


def test_the_same_run_gives_the_same_page(run):
    assert written(run) == written(run)


def test_a_folder_that_is_no_run_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", '{"tasks": {"a": {"n": "many"}}}', "{"])
def test_a_file_that_holds_something_else_is_named(run, content):
    (run / "scores.json").write_text(content)
    with pytest.raises(UserError, match=r"scores\.json: cannot be read"):
        write_report(run)


def test_a_run_yaml_that_is_no_yaml_is_named(run):
    (run / "run.yaml").write_text("seed: [1")
    with pytest.raises(UserError, match=r"run\.yaml: cannot be read"):
        write_report(run)


def test_a_manifest_that_is_no_object_is_named(run):
    for content in ("[]", "{"):
        (run / "student" / "manifest.json").write_text(content)
        with pytest.raises(UserError, match=r"manifest\.json is damaged"):
            write_report(run)


def test_a_rambling_answer_is_cut_and_its_length_told(run):
    long = pair(9, question="why " * 5000)
    (run / "verdicts" / "manifest.json").unlink()
    (run / "verdicts" / "gaps.jsonl").write_text(long.model_dump_json() + "\n")
    html = written(run)
    assert "(20,000 characters)" in html and len(html) < 60_000


def test_pictures_are_drawings_that_can_be_read_aloud(run):
    page = Page(written(run))
    for drawing in page.all("svg"):
        title, described = drawing["aria-labelledby"].split()
        assert page.all("title", id=title) and page.all("desc", id=described)
        assert drawing["role"] == "img"


def svg(markup):
    return ElementTree.fromstring(str(markup))


def test_a_mark_stands_where_its_score_is_and_its_whisker_spans_the_interval():
    drawing = svg(score_chart(Scores.model_validate(SCORES)))
    marks = [node for node in drawing.iter("circle") if node.get("class") == "mark before"]
    at = [float(node.get("cx")) for node in marks[1:]]  # the first one is the legend's
    assert at == pytest.approx([8 + 384 * score / 100 for score in (31.25, 40.0)], abs=0.06)
    whiskers = [node.get("d") for node in drawing.iter("path") if node.get("class") == "whisker after"]
    low, high = re.fullmatch(r"M([\d.]+) [\d.]+v6m0-3H([\d.]+)m0-3v6", whiskers[0]).groups()
    assert (float(low), float(high)) == pytest.approx((8 + 3.84 * 58.9, 8 + 3.84 * 65.1), abs=0.06)


counts_of_verdicts = st.dictionaries(st.sampled_from(list(VerdictKind)), st.integers(0, 10**6), min_size=1).filter(
    lambda counts: any(counts.values())
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=("C",)), max_size=12), counts_of_verdicts))
def test_the_parts_of_a_bar_are_in_proportion_and_fill_it(counts):
    drawing = svg(verdict_chart(counts))
    widths = [float(node.get("width")) for node in drawing.iter("rect")]
    wanted = [384 * n / sum(task.values()) for task in counts.values() for n in task.values() if n]
    assert widths == pytest.approx(wanted, abs=0.11)


@given(st.text(st.characters(exclude_categories=("C",))))
def test_any_text_comes_back_from_an_element_as_it_went_in(text):
    node = svg(element("text", text, font_size=2.0, class_=text))
    assert (node.text or "") == text and node.get("class") == text and node.get("font-size") == "2.0"


def test_scores_are_written_one_way():
    first, second, mean = score_table(SCORED)
    assert first == (
        "textvqa",
        "TextVQA accuracy",
        "1,200",
        "31.2 [28.0, 34.5]",
        "62.0 [58.9, 65.1]",
        "91.0 [89.4, 92.6]",
        "+30.8 [+27.2, +34.1]",
        "<0.001",
    )
    assert second.p == "0.020"
    assert (mean.task, mean.n, mean.after, mean.gain) == ("mean", "1,600", "56.0", "+20.4 [+17.5, +23.2]")


def part(n, before, after):
    scores = {"before": before, "after": after, "teacher": 50.0, "gain": after - before}
    return {"n": n, "images": n, **{who: {"score": score} for who, score in scores.items()}}


def with_parts_and_coverage():
    """The scores as a run writes them: with a benchmark's parts, and with what its file has."""
    chartqa = {
        **SCORES["tasks"]["chartqa"],
        "subsets": {
            "human": part(100, 20.0, 30.0),
            "augmented": part(300, 40.0, 44.0),
        },
        "coverage": {"questions": 1410, "scored": 400, "not_scored": {"missing_image": 10, "over_limit": 1000}},
    }
    return Scores.model_validate({**SCORES, "tasks": {**SCORES["tasks"], "chartqa": chartqa}})


def test_the_parts_of_a_benchmark_stand_beside_their_unweighted_mean():
    human, augmented, mean = part_table(with_parts_and_coverage())
    assert human == ("chartqa, human", "100", "20.0", "30.0", "50.0", "+10.0")
    assert augmented.part == "chartqa, augmented"
    assert mean == ("chartqa, mean of the parts", "400", "30.0", "37.0", "50.0", "+7.0")


def test_questions_that_were_not_scored_are_counted_with_their_reasons():
    scores = with_parts_and_coverage()
    assert coverage_table(scores)[1:] == [
        ("chartqa", "1,000 beyond evaluate.limit, 10 image missing", "1,410", "400", "1,010"),
    ]


def test_a_page_shows_the_parts_and_the_questions_that_were_not_scored(tmp_path):
    (tmp_path / "run.yaml").write_text("seed: 0\n")
    (tmp_path / "scores.json").write_text(with_parts_and_coverage().model_dump_json())
    text = Page(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "chartqa, mean of the parts" in text and "1,000 beyond evaluate.limit, 10 image missing" in text


def test_a_score_that_nobody_knows_is_a_dash_and_no_zero():
    assert estimate_cell(None) == "-"


def test_a_loss_is_not_called_a_gain():
    lost = {**SCORES, "mean_gain": {"score": -2.04, "ci": [-4.0, 0.1]}, "gap_recovered": None}
    assert headline(Scores.model_validate(lost)) == (
        "The student did not gain: it changed by -2.0 points on average [-4.0, 0.1], on 1,600 questions."
    )


def test_the_gallery_is_spread_over_tasks_and_does_not_depend_on_the_order():
    gaps = [pair(i, task) for task, count in (("a", 90), ("b", 30), ("c", 2)) for i in range(count)]
    chosen = choose_gaps(gaps, seed=3, limit=24)
    assert {task: sum(p.task == task for p in chosen) for task in "abc"} == {"a": 11, "b": 11, "c": 2}
    shuffled = random.Random(0).sample(gaps, len(gaps))
    assert choose_gaps(shuffled, seed=3, limit=24) == chosen
    assert choose_gaps(gaps, seed=4, limit=24) != chosen
    assert len(choose_gaps(gaps, seed=3, limit=500)) == len(gaps)


def decoded(uri):
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I", "F"])
def test_a_picture_of_any_kind_becomes_a_small_rgb_one(tmp_path, mode):
    path = tmp_path / "picture.tiff"
    Image.new(mode, (1000, 400)).save(path)
    thumb = decoded(thumbnail(path).uri)
    assert thumb.mode == "RGB" and thumb.size == (320, 128)


def test_a_thumbnail_stands_upright_and_carries_nothing_but_pixels(tmp_path):
    picture = Image.new("RGB", (40, 20), "red")
    exif = picture.getexif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    exif[0x010E] = "where I live"
    picture.save(tmp_path / "a.jpg", exif=exif, comment=b"my name")
    thumb = decoded(thumbnail(tmp_path / "a.jpg").uri)
    assert thumb.size == (20, 40)
    assert not thumb.getexif() and "comment" not in thumb.info


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["png", "jpeg", "gif", "tiff", "webp", "bmp"]))
def test_a_damaged_picture_gives_a_placeholder_or_what_is_left_of_it(tmp_path_factory, data, kind):
    buffer = BytesIO()
    Image.frombytes("RGB", (24, 24), random.Random(0).randbytes(24 * 24 * 3)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "picture"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    thumb = thumbnail(path)
    assert thumb is None or decoded(thumb.uri).mode == "RGB"


def test_a_missing_picture_has_no_thumbnail(tmp_path):
    assert thumbnail(tmp_path / "none.png") is None
    assert thumbnail(tmp_path) is None


def test_the_report_loads_no_torch():
    code = "import sys, parityalign.report.page; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
