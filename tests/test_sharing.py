"""The levelled student for others: its card says what is known and no more, and --push uploads what it should."""

import builtins
import re
import shutil
from types import SimpleNamespace

import httpx2
import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tiny
from parityalign.export.model_card import Made, card, escaped, licence_of
from projects import configure, done, refusal

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
    for said in ("1,200", "lora", "0.0002", "41.0 \\[38.2, 43.9\\]", "on 500 questions", "a" * 40, "hf:Owner/large"):
        assert said in text, said


def test_a_card_without_scores_or_licence_says_so():
    text = card(Made(**{**vars(MADE), "scores": [], "licence": {}, "base_on_hub": False, "commit": None}))
    assert "It has not been scored" in text and "not known here" in text
    assert {"license", "base_model"}.isdisjoint(header(text))


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

    def create_repo(self, repo, *, private, exist_ok):
        self.asked.append(("create", repo, private))
        if self.problem:
            raise self.problem
        self.there.setdefault(repo, private)
        return f"https://hub/{repo}"

    def model_info(self, repo):
        return SimpleNamespace(private=self.there[repo])

    def upload_folder(self, *, repo_id, folder_path, ignore_patterns, commit_message):
        files = {path.name for path in folder_path.iterdir()} - set(ignore_patterns)
        self.asked.append(("upload", repo_id, files))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
    monkeypatch.setattr(Hub, "there", {})
    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.setattr(Hub, "problem", None)
    return Hub


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "level"])
def test_push_uploads_the_student_privately_and_without_the_run_s_own_files(levelled, hub, command):
    said = done(command, levelled / "run.yaml" if command == "run" else levelled, "--push", "me/student")
    assert hub.asked == [("create", "me/student", True), ("upload", "me/student", {"replies.json", "README.md"})]
    assert "pushed: https://hub/me/student" in said


@pytest.mark.slow
def test_everybody_may_see_it_only_if_that_is_asked_for(levelled, hub):
    done("level", levelled, "--push", "me/student", "--public")
    assert hub.asked[0] == ("create", "me/student", False)
    hub.asked.clear()
    assert "public. Add --public" in refusal("level", levelled, "--push", "me/student")
    assert [kind for kind, *_ in hub.asked] == ["create"]


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
        (http_problem(401), "has no write access to me/student \\(401\\)", 2),
        (http_problem(403), "has no write access to me/student \\(403\\)", 2),
        (http_problem(500), "refuses me/student: 500 of the hub", 1),
        (httpx2.ConnectError("no route"), "cannot reach the hub", 1),
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
