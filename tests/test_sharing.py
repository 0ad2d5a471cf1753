"""The levelled student for others: its card says what is known and no more, and --push uploads what it should."""

import builtins
import json
import re
import shutil
from types import SimpleNamespace
from xml.dom import minidom

import httpx2
import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RemoteEntryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from parityalign.config import RunConfig
from parityalign.core import Scores, unsealed
from parityalign.export.benchmarks import BenchmarkScore, benchmark_scores, hub_name, leaderboard_entries
from parityalign.export.model_card import Made, card, escaped, licence_of
from parityalign.report import OTHER_TRAININGS, Changed, Drawn
from parityalign.report.charts import WIDTH
from projects import configure, done, refusal

RESULT = BenchmarkScore(
    task="reading",
    benchmark="textvqa",
    data_set="lmms-lab/textvqa",
    config=None,
    split="validation",
    metric="textvqa_accuracy",
    score=62.5,
    questions=500,
    comparable=True,
)

MADE = Made(
    base="Owner/base-2B",
    base_on_hub=True,
    commit="a" * 40,
    licence={"license": "apache-2.0"},
    teacher="hf:Owner/large",
    sources={"textvqa": "hf:pictures"},
    prompt="{question}\nAnswer shortly.",
    counts={"pairs": 1200, "gaps": 30, "replay": 30, "training": 57, "held_out": 3},
    recipe={"level.method": "lora", "level.learning_rate": 2e-4, "seed": 0},
    result={"steps": 9, "held_out_loss_before": 2.0},
    scores=[["task", "n", "before"], ["textvqa", "500", "41.0 [38.2, 43.9]"]],
    headline="The student gained 3.0 points on average, on 500 questions.",
    held_out="The student agrees with the teacher on 80.0 % of 30 pairs on 12 held-out images, before on 60.0 %.",
    version="0.1.0",
)


def header(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_has_a_header_that_the_hub_reads():
    said = huggingface_hub.ModelCard(card(MADE)).data
    assert (said.base_model, said.library_name, said.pipeline_tag) == (
        "Owner/base-2B",
        "transformers",
        "image-text-to-text",
    )
    assert said.license == "apache-2.0" and "parityalign" in said.tags


def test_the_card_says_data_recipe_and_scores_with_their_counts():
    text = card(MADE)
    assert text.count(OTHER_TRAININGS) == 1
    for said in ("1,200", "lora", "0.0002", "41.0 \\[38.2, 43.9\\]", "on 500 questions", "a" * 40, "hf:Owner/large"):
        assert said in text, said


def test_scores_stand_in_the_header_as_the_hub_s_own_classes_read_them():
    own = RESULT.__class__(**{**vars(RESULT), "data_set": "", "benchmark": "my signs", "split": None, "score": 8.0})
    text = card(Made(**{**vars(MADE), "results": [RESULT, own], "data_sets": ["Owner/photos"]}))
    data = huggingface_hub.ModelCard(text).data
    assert data.datasets == ["Owner/photos"]
    assert [
        (each.dataset_type, each.dataset_split, each.metric_type, each.metric_name, each.metric_value)
        for each in data.eval_results
    ] == [
        ("lmms-lab/textvqa", "validation", "textvqa_accuracy", "TextVQA accuracy", 62.5),
        ("my signs", None, "textvqa_accuracy", "TextVQA accuracy", 8.0),
    ]


def test_the_card_shows_some_of_the_questions_won_and_lost_each_on_one_line():
    said = {"before": "a|b\nc", "after": "<script>\u202e" + "x" * 999, "teacher": None}
    won = Changed("reading", "7", "What is *sold*?", "tea; Tea", "/home/me/a.png", said, 1.0)
    text = card(Made(**{**vars(MADE), "changed": Drawn([won], 31, [], 0)}))
    assert "1 of the 31 test questions that it answers better" in text and "answers worse" not in text
    (row,) = [line for line in text.splitlines() if "sold" in line]
    assert row.startswith("| reading | What is \\*sold\\*? | tea; Tea | a\\|b c | &lt;script&gt;\\\\u202exxx")
    assert row.endswith("x ... | - |") and len(row) < 400 and "/home/me" not in text


def test_the_card_names_the_teacher_s_licence_too():
    text = card(Made(**{**vars(MADE), "teacher_licence": {"license": "other", "license_name": "large-only"}}))
    assert "base model: apache-2.0." in text and "Owner/large, whose licence is: large-only." in text


def test_a_card_without_scores_or_licence_says_so():
    text = card(Made(**{**vars(MADE), "scores": [], "licence": {}, "base_on_hub": False, "commit": None}))
    assert "It has not been scored" in text and "not known here" in text
    nothing = card(Made(**{**vars(MADE), "scores": [], "held_out": ""}))
    assert OTHER_TRAININGS in text and OTHER_TRAININGS not in nothing
    assert {"license", "base_model", "model-index", "datasets"}.isdisjoint(header(text)) and "scores.svg" not in text


@settings(max_examples=30)
@given(st.text(max_size=40))
def test_no_text_can_leave_its_place_on_the_card(text):
    shown = escaped(text)
    assert "\n" not in shown and "<" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*[|`*\[#]", shown)
    rows = [
        line for line in card(Made(**{**vars(MADE), "recipe": {"level.note": text}})).splitlines() if "note" in line
    ]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", rows[0])) == 3


@pytest.mark.parametrize(
    ("readme", "said"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# A", {"license": "mit"}),
        ("---\nlicense: other\nlicense_name: own\n---\n", {"license": "other", "license_name": "own"}),
        ("# no header", {}),
        ("---\n[broken\n---\n", {}),
        ("---\n- a list\n---\n", {}),
        ("---\nlicense: mit\ndate: 2024-13-45\n---\n", {}),
        (f"---\nlicense: mit\nx: {'[' * 3000}\n---\n", {}),
        ("---\nlicense: &many [a, a]\nlicense_name: [*many, *many]\n---\n", {}),
    ],
)
def test_the_licence_is_what_the_base_s_card_says(readme, said):
    assert licence_of(readme) == said


def test_the_lines_for_its_use_work_with_transformers_alone(tmp_path, monkeypatch, capsys):
    tiny.fast_vlm(tmp_path)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    lines = re.search(r"```python\n(.*?)```", card(MADE), re.DOTALL)[1]
    heard = []
    exec(lines, {"__builtins__": {**vars(builtins), "print": heard.append}})
    assert len(heard) == 1 and isinstance(heard[0], str)


# Of a run


@pytest.fixture
def levelled(project, trainable):
    done("run", project / "run.yaml")
    return project / "runs" / "a"


@pytest.mark.slow
def test_a_run_leaves_a_card_beside_the_student_with_its_scores(levelled):
    text = (levelled / "student" / "README.md").read_text()
    assert "fake:student.json" in text and "fake:teacher.json" in text
    assert "VQA accuracy" in text and "| textvqa |" in text
    assert str(levelled.parent) not in text, "no path of this machine"
    assert "README.md" not in (levelled / "student" / "manifest.json").read_text()


@pytest.mark.slow
def test_the_figure_beside_the_card_is_a_drawing_of_the_scores_that_asks_for_nothing(levelled):
    drawing = minidom.parse(str(levelled / "student" / "scores.svg")).documentElement
    scores = json.loads((levelled / "scores.json").read_text())["tasks"]["textvqa"]
    told = drawing.getElementsByTagName("desc")[0].firstChild.data
    assert f"after {scores['after']['score']:.1f}" in told and "![" in (levelled / "student" / "README.md").read_text()
    left, _, width, _ = map(float, drawing.getAttribute("viewBox").split())
    ground = drawing.getElementsByTagName("rect")[0]
    assert float(ground.getAttribute("x")) == left < 0 and left + width > WIDTH, "room at both sides, and on the ground"
    text = (levelled / "student" / "scores.svg").read_text()
    assert "<script" not in text and "href" not in text and "url(" not in text


@pytest.mark.slow
def test_the_card_comes_with_levelling_and_gets_its_scores_from_evaluate(project, trainable):
    done("run", project / "run.yaml")
    run = project / "runs" / "a"
    for stale in ("student", "answers"):
        shutil.rmtree(run / stale)
    done("level", run)
    assert "It has not been scored" in (run / "student" / "README.md").read_text()
    done("evaluate", run)
    assert "It has not been scored" not in (run / "student" / "README.md").read_text()


@pytest.mark.slow
def test_a_finished_run_leaves_the_card_alone(levelled):
    card_file = levelled / "student" / "README.md"
    before = card_file.stat().st_mtime_ns
    done("run", levelled / "run.yaml")
    assert card_file.stat().st_mtime_ns == before


# The hub


class Hub:
    """Stands for huggingface_hub's API: remembers what it was asked."""

    there: dict[str, bool] = {}
    asked: list[tuple] = []
    problem: Exception | None = None
    benchmarks: dict[str, str] = {}

    def create_repo(self, repo, *, private, exist_ok, repo_type):
        self.asked.append((f"create {repo_type}", repo, private))
        if self.problem:
            raise self.problem
        self.there.setdefault(repo, private)
        return f"https://hub/{repo}"

    def repo_info(self, repo, *, repo_type):
        return SimpleNamespace(private=self.there[repo])

    def upload_folder(self, *, repo_id, folder_path, ignore_patterns, delete_patterns, commit_message, repo_type):
        files = {path.name for path in folder_path.iterdir()} - set(ignore_patterns)
        self.asked.append((f"upload {repo_type}", repo_id, files))

    def upload_file(self, *, repo_id, path_or_fileobj, path_in_repo, commit_message):
        self.asked.append((path_in_repo, repo_id, yaml.safe_load(path_or_fileobj)))

    def hf_hub_download(self, name, file, *, repo_type):
        if name not in self.benchmarks:
            raise RemoteEntryNotFoundError(file, response=http_problem(404).response)
        return self.benchmarks[name]


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
    monkeypatch.setattr(Hub, "there", {})
    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.setattr(Hub, "problem", None)
    monkeypatch.setattr(Hub, "benchmarks", {})
    return Hub


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "level"])
def test_push_uploads_the_student_privately_and_without_the_run_s_own_files(levelled, hub, command):
    said = done(command, levelled / "run.yaml" if command == "run" else levelled, "--push", "me/student")
    files = {"replies.json", "README.md", "scores.svg"}
    assert hub.asked == [("create model", "me/student", True), ("upload model", "me/student", files)]
    assert "pushed: https://hub/me/student" in said


@pytest.mark.slow
def test_everybody_may_see_it_only_if_that_is_asked_for(levelled, hub):
    done("level", levelled, "--push", "me/student", "--public")
    assert hub.asked[0] == ("create model", "me/student", False)
    hub.asked.clear()
    assert "public. Add --public" in refusal("level", levelled, "--push", "me/student")
    assert [kind for kind, *_ in hub.asked] == ["create model"]


@pytest.mark.parametrize("name", ["student", "a/b/c", "me/ student", ""])
def test_a_name_that_is_none_is_refused_before_the_work(project, hub, name):
    assert "OWNER/NAME" in refusal("run", project / "run.yaml", "--push", name)
    assert not (project / "runs").exists()


def test_without_a_token_there_is_one_clear_error_before_the_work(project, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "hf auth login" in refusal("run", project / "run.yaml", "--push", "me/student")
    assert not (project / "runs").exists()


@pytest.mark.slow
def test_public_alone_is_refused(levelled):
    assert "give --push" in refusal("level", levelled, "--public")


def http_problem(status):
    request = httpx2.Request("POST", "https://hub/api/repos/create")
    return HfHubHTTPError(f"{status} of the hub", response=httpx2.Response(status, request=request))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "said", "status"),
    [
        pytest.param(http_problem(401), "has no write access to me/student \\(401\\)", 2, marks=pytest.mark.long),
        (http_problem(403), "has no write access to me/student \\(403\\)", 2),
        (http_problem(500), "refuses me/student: 500 of the hub", 1),
        pytest.param(httpx2.ConnectError("no route"), "cannot reach the hub", 1, marks=pytest.mark.long),
        (OfflineModeIsEnabled("offline"), "cannot reach the hub", 1),
    ],
)
def test_what_the_hub_has_against_it_is_said_in_words_without_the_token(
    levelled, hub, monkeypatch, problem, said, status
):
    monkeypatch.setattr(hub, "problem", problem)
    text = refusal("level", levelled, "--push", "me/student", status=status)
    assert re.search(said, text) and "secret" not in text


@pytest.mark.slow
def test_a_run_without_a_levelled_student_has_nothing_to_push(project, hub):
    configure(project, teacher="fake:student.json")
    done("run", project / "run.yaml")
    assert not (project / "runs" / "a" / "student" / "README.md").exists()
    assert "no levelled student" in refusal("level", project / "runs" / "a", "--push", "me/student")
    assert hub.asked == []


@pytest.mark.slow
def test_an_export_is_uploaded_as_a_data_set_if_it_is_one(levelled, hub):
    said = done("export", levelled, "--format", "hf-dataset", "--push", "me/gaps")
    assert hub.asked == [("create dataset", "me/gaps", True), ("upload dataset", "me/gaps", {"README.md", "data"})]
    assert "pushed: https://hub/me/gaps" in said
    hub.asked.clear()
    assert "use --format hf-dataset" in refusal("export", levelled, "--format", "llava", "--push", "me/gaps")
    assert hub.asked == [] and not (levelled / "exports" / "llava").exists()


# Benchmarks of the hub


DECLARED = """\
name: TextVQA
tasks:
  - {id: val, config: default, split: validation}
  - {id: test, config: default, split: test}
"""


def test_a_score_on_a_benchmark_of_the_hub_stands_where_the_hub_looks_for_it():
    (entry,) = huggingface_hub.parse_eval_result_entries(
        yaml.safe_load(leaderboard_entries([RESULT], {"lmms-lab/textvqa": DECLARED}))
    )
    assert (entry.dataset_id, entry.task_id, entry.value) == ("lmms-lab/textvqa", "val", 62.5)
    assert "textvqa_accuracy, 500 questions" in entry.notes


@pytest.mark.parametrize(
    ("changes", "declared"),
    [
        ({}, {}),
        ({"comparable": False}, {"lmms-lab/textvqa": DECLARED}),
        ({"split": None}, {"lmms-lab/textvqa": DECLARED}),  # which of the two is not known
        ({"split": None}, {"lmms-lab/textvqa": "tasks: [{id: test, split: test}]"}),  # another one may have been read
        ({"config": None}, {"lmms-lab/textvqa": "tasks: [{id: val, config: other, split: validation}]"}),
        ({"split": "train"}, {"lmms-lab/textvqa": DECLARED}),
        ({}, {"lmms-lab/textvqa": "tasks: [{id: [val], split: validation}]\nmade: 2024-13-45"}),
        ({"config": "other"}, {"lmms-lab/textvqa": DECLARED}),
        ({"data_set": ""}, {"lmms-lab/textvqa": DECLARED}),
        ({}, {"lmms-lab/textvqa": "tasks: [7, {split: validation}]"}),
        ({}, {"lmms-lab/textvqa": "[" * 40_000}),
        ({}, {"lmms-lab/textvqa": "- tasks"}),
    ],
)
def test_no_score_is_claimed_on_what_is_no_benchmark_or_not_the_same(changes, declared):
    assert leaderboard_entries([BenchmarkScore(**{**vars(RESULT), **changes})], declared) == ""


@pytest.mark.slow
def test_where_questions_lie_is_read_off_the_configuration(levelled):
    scores = Scores.model_validate_json(json.dumps(unsealed(json.loads((levelled / "scores.json").read_text()))))
    said = {"run": levelled, "teacher": "fake:t.json", "student": "fake:s.json"}

    def found(**task):
        data = {"images": ["hf:Owner/photos:train"], **task}
        return benchmark_scores(RunConfig.model_validate({**said, "tasks": {"textvqa": data}}), scores)[0]

    there = found(test="hf:lmms-lab/textvqa:en/validation")
    assert (there.data_set, there.config, there.split) == ("lmms-lab/textvqa", "en", "validation")
    assert (there.score, there.questions, there.comparable) == (100.0, 8, True)
    assert found(test="hf:./textvqa").data_set == found(test="mine.jsonl").data_set == ""
    assert not found(test="hf:lmms-lab/textvqa", metric="anls").comparable
    assert hub_name("hf:Owner/photos:train") == "Owner/photos" and hub_name("photos") == hub_name("hf:/a/b") == ""


@pytest.mark.slow
def test_push_asks_the_hub_which_test_splits_are_benchmarks(levelled, hub, monkeypatch, tmp_path):
    monkeypatch.setattr("parityalign.export.hub.benchmark_scores", lambda config, scores: [RESULT])
    done("level", levelled, "--push", "me/student")
    assert len(hub.asked) == 2
    hub.benchmarks["lmms-lab/textvqa"] = tmp_path / "eval.yaml"
    (tmp_path / "eval.yaml").write_text(DECLARED)
    done("level", levelled, "--push", "me/student")
    where, repo, (entry,) = hub.asked[-1]
    assert (where, repo, entry["value"]) == (".eval_results/parityalign.yaml", "me/student", 62.5)

    def broken(self, name, file, *, repo_type):
        raise http_problem(500)

    monkeypatch.setattr(Hub, "hf_hub_download", broken)
    assert "pushed: https://hub/me/student" in done("level", levelled, "--push", "me/student")
