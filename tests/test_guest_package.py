"""The package in `tests/guest`, really installed: one part of each kind, at work in whole runs as CONTRIBUTING says."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from PIL import Image

import parityalign as pa
from makers import mute
from parityalign.config.schema import IdentifySettings
from parityalign.core import LevelResult, Score
from parityalign.core.registry import GROUPS, part_names
from parityalign.engines import CachedModel
from parityalign.pipeline import run as run_module
from parityalign.pipeline.run_models import RunModels
from parityalign.stages import PlannedRequests, Stage, _list
from parityalign.stages.judging import judge_of
from parityalign.tasks import task_of
from projects import done, refusal

pytestmark = pytest.mark.slow  # pip builds and installs a package

ROOT = Path(__file__).parent.parent
TUTORIAL = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PARTS = {
    "sources": "cards",
    "skills": "colours",
    "benchmarks": "deck",
    "metrics": "same_words",
    "backends": "eyedropper",
    "losses": "second_look",
    "filters": "hues_only",
    "stages": "check_labels",
    "exports": "flashcards",
}
LIGHT = f"""
import importlib, sys
for name in {[name for group, name in PARTS.items() if group != "losses"]}:
    importlib.import_module("parityalign_guest." + name)
sys.exit("torch" in sys.modules)
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A folder into which pip has installed the package."""
    folder = tmp_path_factory.mktemp("guest")
    shutil.copytree(ROOT / "tests" / "guest", folder / "source")  # a build leaves files where the source lies
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    told = [*offline, "--target", folder / "site", folder / "source"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *told], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture(scope="module", autouse=True)
def guest(site):
    """The package can be imported, here and in processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), *sys.path]))
        yield
    for name in [name for name in sys.modules if name.startswith("parityalign_guest")]:
        del sys.modules[name]


def begin(folder: Path, **changes) -> Path:
    """Writes labelled cards and a `run.yaml` that names the guest's parts; `changes` replace whole sections."""
    from parityalign_guest.palette import COLOURS

    (folder / "deck").mkdir(exist_ok=True)
    for colour, value in COLOURS.items():
        framed = Image.new("RGB", (64, 64), "grey")  # other pictures than those of the pool
        framed.paste(value, (16, 16, 48, 48))
        framed.save(folder / "deck" / f"{colour}.png")
    with (folder / "deck" / "deck.csv").open("w", newline="") as file:
        rows = [(f"{colour}.png", "What colour is the card?", colour) for colour in COLOURS]
        csv.writer(file).writerows([("image", "question", "answer"), *rows])
    said = {
        "run": "runs/a",
        "teacher": "eyedropper:all",
        "student": "eyedropper:red,white",
        "tasks": {"mine": {"images": "cards:8", "skill": "colours", "benchmark": "deck", "test": "deck"}},
        "filters": ["hues_only"],
        "stages": ["check_labels"],
        "level": {"held_out": 0.2},
        "evaluate": {"resamples": 100, "speed_questions": 0},
        **changes,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(said))
    return folder / "run.yaml"


def colours_learnt(patch: pytest.MonkeyPatch) -> None:
    """Levelling replaced: the eyedropper learns the names of the colours that it is shown."""
    from parityalign_guest.eyedropper import Eyedropper

    def learn(pairs, held_out, out):
        (out / "colours").write_text(",".join(["red", "white", *(pair.answer for pair in (*pairs, *held_out))]))
        return LevelResult(1, 1, 2.0, 1.0)

    patch.setattr(run_module, "leveller", lambda *_, **__: learn)
    load = lambda student: Eyedropper((student.path / "colours").read_text())  # noqa: E731
    levelled = lambda this, student: CachedModel(student.digest, lambda: load(student), this.store)  # noqa: E731
    patch.setattr(RunModels, "trained", levelled)


@pytest.fixture
def learning(monkeypatch):
    colours_learnt(monkeypatch)


@pytest.fixture(scope="module")
def whole(guest, tmp_path_factory):
    """A finished run with all of the guest's parts but the term of the loss; nobody changes it."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        colours_learnt(patch)
        return pa.open_run(begin(folder), progress=mute)()


class Texts(HTMLParser):
    """The texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.found += [data.strip()] if data.strip() else []


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def console(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "parityalign", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# What is installed


def test_the_package_offers_one_part_of_each_kind():
    assert {*PARTS} == {*GROUPS}
    assert all(name in part_names(group) for group, name in PARTS.items())
    offered = {(entry.group, entry.name) for entry in distribution("parityalign-guest").entry_points}
    assert offered == {(f"parityalign.{group}", name) for group, name in PARTS.items()}


def test_no_part_but_the_term_of_the_loss_brings_torch_along():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


# A whole run


def test_every_part_has_its_say_in_a_whole_run(whole):
    assert [each.stage for each in whole.outcomes][:4] == ["intake", "annotate", "check_labels", "identify"]
    assert {pair.question for pair in whole.pairs} == {"What colour is the card?"}
    assert {pair.teacher for pair in whole.pairs} == {"eyedropper:all"}
    assert sorted(pair.answer for pair in whole.gaps) == ["blue", "green", "orange", "purple", "yellow"]
    score = whole.scores.tasks["mine"]
    assert (score.metric, score.n, score.before.score, score.after.score) == ("same_words", 8, 25.0, 87.5)


def test_what_the_source_draws_is_kept_in_the_run_and_its_name_stays_a_name(whole):
    assert all(Path(pair.image).is_relative_to(whole.path) for pair in whole.pairs)
    assert yaml.safe_load((whole.path / "run.yaml").read_text())["tasks"]["mine"]["images"] == "cards:8"


def test_the_metric_is_given_a_pairs_one_answer_as_it_stands(whole):
    mine = task_of("mine", whole.config.tasks["mine"])
    assert judge_of(mine, IdentifySettings(rule="metric")).score("Blue", "blue", "Which?") == Score(
        1.0, "blue", "one of 1 references"
    )


def test_the_filter_marks_pairs_with_its_reason_and_nobody_is_asked_about_them(whole):
    marked = {pair.answer: verdict for pair, verdict in whole.judged if verdict.verdict == "dropped"}
    assert {answer: verdict.reason for answer, verdict in marked.items()} == {
        "white": "hues_only: white is not a hue",
        "black": "hues_only: black is not a hue",
    }
    assert len(lines(whole.path / "verdicts" / "student.jsonl")) == len(whole.pairs) - 2
    assert {verdict.student_text for verdict in marked.values()} == {None}


def test_the_stage_makes_an_artifact_of_its_own(whole):
    manifest = json.loads((whole.path / "label_checks" / "manifest.json").read_text())
    assert manifest["counts"] == {"repeated": 8, "not repeated": 0}
    assert len(lines(whole.path / "label_checks" / "answers.jsonl")) == 8


def test_the_report_shows_the_stage_and_the_filters_reasons(whole):
    texts = Texts(whole.report.read_text()).found
    place = texts.index("check_labels")
    assert {"repeated", "8"} <= {*texts[place : place + 5]}
    assert "dropped: hues_only: white is not a hue" in texts


def test_the_export_writes_the_gaps_of_a_run_that_has_a_stage_more(whole, tmp_path):
    assert "cards 5" in done("export", whole.path, "--format", "flashcards", "--out", tmp_path / "out")
    with (tmp_path / "out" / "flashcards.tsv").open(newline="") as file:
        rows = [*csv.reader(file, delimiter="\t")]
    assert {(question, answer) for question, answer, _ in rows} == {(pair.question, pair.answer) for pair in whole.gaps}
    assert all(Path(image).is_file() for *_, image in rows)


@pytest.mark.long
def test_a_finished_run_is_up_to_date_and_a_filter_less_touches_only_what_follows_it(learning, tmp_path):
    done("run", begin(tmp_path))
    assert "done" not in done("run", tmp_path / "run.yaml")
    said = done("run", begin(tmp_path, filters=[]))
    assert "check_labels: up to date" in said and "identify: done again" in said


def test_the_plan_counts_the_cards_and_has_a_row_for_the_stage(tmp_path):
    planned = json.loads(done("plan", begin(tmp_path), "--offline", "--json"))
    rows = {(row["stage"], row["model"]): row for row in planned["rows"]}
    assert rows["annotate", "teacher"]["requests"] == 8
    asked = rows["check_labels", "teacher"]
    assert (asked["requests"], asked["reply_tokens"]) == (8, 40)


@pytest.mark.long
def test_the_stage_has_a_command_and_those_after_it_ask_for_it(tmp_path):
    run = pa.open_run(begin(tmp_path), progress=mute).upto("annotate")
    assert f"First: parityalign check_labels {run.path}" in refusal("identify", run.path)
    worked = console("check_labels", run.path)
    assert (worked.returncode, worked.stderr.count("Traceback")) == (0, 0), worked.stderr
    assert "check_labels: done (not repeated 0, repeated 8)" in worked.stdout
    assert "identify: done" in done("identify", run.path)


def test_an_export_that_comes_too_early_names_the_command_that_is_missing(tmp_path):
    run = pa.open_run(begin(tmp_path), progress=mute).upto("check_labels")
    assert f"First: parityalign identify {run.path}" in refusal("export", run.path, "--format", "flashcards")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": "eyedropper:pink"}, "eyedropper:pink has no colour 'pink'"),
        ({"tasks": {"mine": {"images": "cards:many", "skill": "colours"}}}, "cards:many does not say how many cards"),
        ({"level": {"objective": {"second_look": {"powr": 1}}}}, "Did you mean power?"),
        ({"filters": ["hue_only"]}, "there is no filter of pairs 'hue_only'. Did you mean hues_only?"),
        ({"stages": ["check_label"]}, "Did you mean check_labels?"),
    ],
)
def test_what_the_guest_finds_wrong_ends_in_one_message_before_anything_is_asked(tmp_path, changes, said):
    assert said in refusal("run", begin(tmp_path, **changes))
    assert not (tmp_path / "runs" / "a" / "pairs").exists()


@pytest.mark.parametrize(
    ("text", "said"), [(None, "has no deck.csv"), ("image,question\nred.png,What?\n", "card 1 has no 'answer'")]
)
def test_a_deck_that_cannot_be_read_ends_in_one_message(tmp_path, text, said):
    config, file = begin(tmp_path), tmp_path / "deck" / "deck.csv"
    file.unlink() if text is None else file.write_text(text)
    assert said in refusal("run", config)


# A stage of the house


def counted(run, artifact) -> None:
    """A stage in one function: how many pairs have an answer of one word."""
    artifact.finish({"one word": sum(" " not in pair.answer for pair in run.pairs)})


COUNT = Stage(
    "count",
    artifact="counted",
    of=("pairs",),
    settings=(),
    work=counted,
    planned=lambda config, amounts: [PlannedRequests("student", {"mine": 3}, 1)],
    help="Count the answers of one word.",
)
WITH_COUNT = (*_list.STAGES[:2], COUNT, *_list.STAGES[2:])
"""The line that a stage of parityalign's own takes."""


@pytest.mark.long
def test_a_stage_of_the_house_is_one_module_and_one_line(learning, tmp_path, monkeypatch):
    monkeypatch.setattr(_list, "STAGES", WITH_COUNT)
    config = begin(tmp_path, stages=[])
    planned = json.loads(done("plan", config, "--offline", "--json"))
    assert ("count", 3) in {(row["stage"], row["requests"]) for row in planned["rows"]}
    run = pa.open_run(config, progress=mute).upto("annotate")
    assert f"First: parityalign count {run.path}" in refusal("identify", run.path)
    assert run.upto("count").outcomes[-1].counts == {"one word": 8}
    texts = Texts(run().report.read_text()).found
    assert {"one word", "8"} <= {*texts[texts.index("count") :][:3]}
    assert "cards 5" in done("export", run.path, "--format", "flashcards")


HOUSE = """
from dataclasses import replace
from parityalign.stages import _list
from parityalign_guest.check_labels import STAGE
_list.STAGES = (*_list.STAGES[:2], replace(STAGE, name="recheck", artifact="rechecked"), *_list.STAGES[2:])
from parityalign.cli import main
main()
"""
"""Patched before the command line is built."""


@pytest.mark.long
def test_a_stage_of_the_house_has_its_command(tmp_path):
    run = pa.open_run(begin(tmp_path, stages=[]), progress=mute).upto("annotate")
    worked = subprocess.run([sys.executable, "-c", HOUSE, "recheck", run.path], capture_output=True, text=True)
    assert "recheck: done (not repeated 0, repeated 8)" in worked.stdout, worked.stderr


# The tutorial


def tutorial_blocks(language: str) -> list[tuple[str, str]]:
    """(the last file of the guest that is linked before it, its text) of each block of code."""
    found, file = [], ""
    for link, said, block in re.findall(r"\(tests/guest/([\w./]+)\)|^```(\w+)\n(.*?)^```", TUTORIAL, re.M | re.S):
        file = link or file
        if said == language:
            found.append((file, block))
    return found


def test_the_code_in_the_tutorial_is_that_of_the_package():
    blocks = tutorial_blocks("python") + tutorial_blocks("toml")
    assert len(blocks) >= len(PARTS)
    for file, block in blocks:
        assert block in (ROOT / "tests" / "guest" / file).read_text(encoding="utf-8"), f"{file}:\n{block}"


def test_the_tutorial_leads_through_every_part():
    linked = {Path(link).stem for link in re.findall(r"\(tests/guest/([\w./]+\.py)\)", TUTORIAL)}
    assert linked >= {*PARTS.values()}


@pytest.mark.long
def test_the_run_of_the_tutorial_trains_a_student_with_the_guests_term(tmp_path):
    ((_, block),) = tutorial_blocks("yaml")
    said = yaml.safe_load(block)
    assert "second_look" in said["level"]["objective"]
    said["level"] |= {"max_steps": 2}
    said["evaluate"] = {"resamples": 100, "speed_questions": 0}
    run = tmp_path / said["run"]
    told = done("run", begin(tmp_path, **said))
    assert "discrepancy" not in told and not (run / "discrepancy").exists()  # the term needs a view, and no signals
    manifest = json.loads((run / "student" / "manifest.json").read_text())
    assert manifest["settings"]["level.objective"]["second_look"]["power"] == 1.0
    assert manifest["result"]["steps"] == 2
    assert manifest["result"]["held_out_loss_after"] < manifest["result"]["held_out_loss_before"]
    assert "up to date" in done("level", run)
