"""Exports: what each format holds, that an export tells of its run alone, and that it takes nothing else away."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import parityalign as pa
from makers import content
from parityalign.config.run_yaml import load_config
from parityalign.core import Pair
from parityalign.core.interfaces import ExportFormat
from parityalign.core.registry import find_part, load_part, part_names
from parityalign.core.seals import sealed
from parityalign.export.pictures import picture_name
from parityalign.export.run_export import export_run
from parityalign.metrics import textvqa_accuracy
from parityalign.stages.parsing import without_tags
from projects import WORDS, done, make_project, refusal, table

FORMATS = ("llava", "messages", "trl", "hf-dataset")
GAPS = WORDS[4:]
ASKED = "What is written?"


def begun(project: Path, *stages: str) -> Path:
    """A run folder in which these stages were run."""
    run = project / "runs" / "a"
    run.mkdir(parents=True)
    said = yaml.safe_load((project / "run.yaml").read_text())
    said |= {"run": ".", "teacher": "fake:../../teacher.json", "student": "fake:../../student.json"}
    said["tasks"] = {"textvqa": {"images": "../../pool", "test": "../../test"}}
    (run / "run.yaml").write_text(yaml.safe_dump(said))
    for stage in stages:
        done(stage, run)
    return run


IDENTIFIED = ("intake", "annotate", "identify")


@pytest.fixture
def run(project):
    """A run with eight pairs, four of them gaps, and no levelled student."""
    return begun(project, *IDENTIFIED)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The same run for all tests that only export from it, to elsewhere."""
    return begun(make_project(tmp_path_factory.mktemp("shared")), *IDENTIFIED)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(run: Path, form: str, out: Path, *options: object) -> list[dict[str, object]]:
    """An export's rows, brought to the keys image, asked and answer."""
    done("export", run, "--format", form, "--out", out, *options)
    return [plain(form, row) for row in written(form, out)]


def written(form: str, folder: Path) -> list[dict[str, object]]:
    if form == "llava":
        return json.loads((folder / "data.json").read_text())
    if form == "hf-dataset":
        return pyarrow.parquet.read_table(folder / "data").to_pylist()
    return lines(folder / "data.jsonl")


def plain(form: str, row: dict) -> dict[str, object]:
    if form == "llava":
        human, gpt = row["conversations"]
        assert (human["from"], gpt["from"]) == ("human", "gpt")
        said = {"image": row["image"], "asked": human["value"].removeprefix("<image>\n"), "answer": gpt["value"]}
    elif form == "messages":
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        asked = user["content"].removeprefix("<image>\n")
        said = {"image": row["images"][0], "asked": asked, "answer": assistant["content"]}
    elif form == "trl":
        (user,), (assistant,) = row["prompt"], row["completion"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        said = {"image": row["images"][0], "asked": user["content"], "answer": assistant["content"]}
    else:
        said = {"image": row["image"], "asked": row["question"], "answer": row["answer"]}
    return said | {key: row[key] for key in ("id", "task", "verdict", "student_text", "teacher_text", "student_score")}


def test_these_are_the_formats():
    assert part_names("exports") == ["evaluation_log", "hf_dataset", "llava", "lmms_eval", "messages", "trl"]
    assert all(load_part("exports", name, ExportFormat).of for name in part_names("exports"))


@pytest.mark.parametrize("form", FORMATS)
def test_the_gaps_leave_with_their_verdicts_and_both_answers(shared, form, tmp_path):
    found = rows(shared, form, tmp_path / "out")
    assert sorted(row["answer"] for row in found) == sorted(GAPS)
    gaps = {gap["pair_id"]: gap for gap in lines(shared / "verdicts" / "gaps.jsonl")}
    for row in found:
        assert gaps[row["id"]]["answer"] == row["answer"] == row["teacher_text"]
        assert (row["asked"], row["task"], row["verdict"]) == (ASKED, "textvqa", "teacher_only")
        assert (row["student_text"], row["student_score"]) == ("nothing", 0.0)


@pytest.mark.parametrize("form", FORMATS)
def test_all_pairs_leave_on_request_each_with_its_verdict(shared, form, tmp_path):
    found = rows(shared, form, tmp_path / "out", "--what", "all")
    assert Counter(row["verdict"] for row in found) == {"teacher_only": 4, "student_right": 4}
    assert {row["teacher_text"] for row in found if row["verdict"] == "student_right"} == {None}


@pytest.mark.parametrize("form", FORMATS)
def test_the_image_of_a_row_is_the_one_of_its_pair(shared, form, tmp_path):
    images = {pair.pair_id: Path(pair.image) for pair in pa.open_run(shared).pairs}
    rows(shared, form, tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "elsewhere")
    for row in written(form, moved):
        row = plain(form, row)
        kept = row["image"]["bytes"] if form == "hf-dataset" else (moved / row["image"]).read_bytes()
        assert kept == images[row["id"]].read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_no_export_names_a_path_of_this_machine(shared, form, tmp_path):
    done("export", shared, "--format", form, "--what", "all", "--out", tmp_path / "out")
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not [path for path, data in files.items() if str(shared.parent.parent.parent).encode() in data]


@pytest.mark.parametrize("form", ["llava", "messages", "trl"])
def test_pictures_stay_where_they_lie_on_request(shared, form, tmp_path):
    images = {pair.pair_id: pair.image for pair in pa.open_run(shared).pairs}
    found = rows(shared, form, tmp_path / "out", "--in-place")
    assert {row["id"]: row["image"] for row in found} == {row["id"]: images[row["id"]] for row in found}
    assert not (tmp_path / "out" / "images").exists()


def test_a_picture_that_is_another_one_by_now_is_refused(run, project):
    (project / "pool" / "cafe.png").write_bytes((project / "pool" / "stop.png").read_bytes())
    for form in FORMATS:
        assert "cafe.png is not the one any more" in refusal("export", run, "--format", form)


def test_the_ending_of_a_picture_goes_along_only_if_it_is_one_of_pictures():
    pair = Pair(pair_id="7", image_id="0d2e", image="", task="t", question="q", answer="a", teacher="t")
    endings = {"a.png": ".png", "a.JPEG": ".JPEG", "a": "", "a.\u202egnp": "", "a.png/../../b.sh": ""}
    names = {image: picture_name(pair.model_copy(update={"image": image})) for image in endings}
    assert names == {image: f"images/0d2e{ending}" for image, ending in endings.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_questions_go_out_bare_or_as_the_models_were_asked_them(shared, form, tmp_path):
    assert {row["asked"] for row in rows(shared, form, tmp_path / "out")} == {ASKED}
    prompt = find_part("skills", "textvqa").SKILL.answer_prompt.format(question=ASKED)
    assert {row["asked"] for row in rows(shared, form, tmp_path / "out", "--prompted")} == {prompt}


# No second place for an image


def test_a_pair_that_speaks_of_placeholders_gives_no_second_one(project):
    knows = json.loads((project / "teacher.json").read_text())
    for row in knows["replies"]:
        row["text"] = row["text"].replace("written?", "behind <image><|image_pad|> here?").replace("taxi", "a <image>")
    (project / "teacher.json").write_text(json.dumps(knows))
    run = begun(project, *IDENTIFIED)
    for form, marks in {"llava": 4, "messages": 4, "trl": 0, "hf-dataset": 0}.items():
        out = project / "out" / form
        rows(run, form, out)
        text = json.dumps([{**row, "image": None} for row in written(form, out)])
        assert text.count("<image>") == marks
        assert "<|" not in text
        assert "a < image>" in text


@given(st.text(alphabet="<>|/ image_pad[IMG]INST", max_size=40))
def test_no_tag_outlives_its_cleaning_and_cleaning_twice_is_cleaning_once(text):
    clean = without_tags(text)
    assert not re.search(r"<[^<>\s]+>|\[IMG\]|\[/?INST\]", clean)
    assert without_tags(clean) == clean
    assert clean.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("text", ["a < b", "5 > 3", "I <3 tea", "[EXIT]", "x<y and y>z", "What is sold?"])
def test_plain_text_stays_as_it_is(text):
    assert without_tags(text) == text


# What belongs to one format


def test_llama_factory_finds_its_entry_and_the_entry_its_columns(shared, tmp_path):
    folder = tmp_path / "out"
    done("export", shared, "--format", "messages", "--out", folder)
    ((name, entry),) = json.loads((folder / "dataset_info.json").read_text()).items()
    assert (name, entry["formatting"]) == ("parityalign_gaps", "sharegpt")
    (row, *_) = lines(folder / entry["file_name"])
    turns = row[entry["columns"]["messages"]]
    tags = entry["tags"]
    assert [turn[tags["role_tag"]] for turn in turns] == [tags["user_tag"], tags["assistant_tag"]]
    assert turns[0][tags["content_tag"]].count("<image>") == len(row[entry["columns"]["images"]]) == 1


def test_the_library_opens_the_images_of_a_trl_export(shared, tmp_path, monkeypatch):
    done("export", shared, "--format", "trl", "--out", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    path = "data.jsonl"
    loaded = datasets.load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    loaded = loaded.cast_column("images", datasets.List(datasets.Image()))
    assert [image.size for image in loaded[0]["images"]] == [(16, 16)]


def test_the_data_set_folder_loads_with_its_pictures_wherever_it_is_moved(run, project):
    done("export", run, "--format", "hf-dataset", "--what", "all", "--out", project / "here")
    (project / "here").rename(project / "there")
    (project / "pool").rename(project / "gone")
    loaded = datasets.load_dataset(str(project / "there"), cache_dir=str(project / "cache"))["train"]
    assert len(loaded) == 8
    assert {image.size for image in loaded["image"]} == {(16, 16)}
    assert loaded.features["student_score"].dtype == "float64"


def test_the_hub_s_viewer_finds_the_kind_of_each_column_in_the_file(shared, tmp_path):
    done("export", shared, "--format", "hf-dataset", "--out", tmp_path)
    (file,) = (tmp_path / "data").iterdir()
    told = json.loads(pyarrow.parquet.read_schema(file).metadata[b"huggingface"])["info"]["features"]
    assert told["image"] == {"_type": "Image"} and told["question"] == {"dtype": "string", "_type": "Value"}
    declared = huggingface_hub.DatasetCard.load(tmp_path / "README.md").data
    assert declared.configs == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]


def test_the_data_card_tells_where_the_pairs_come_from_and_no_path(shared, tmp_path):
    done("export", shared, "--format", "hf-dataset", "--out", tmp_path)
    text = (tmp_path / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    told = yaml.safe_load(header)["parityalign"]
    assert (told["teacher"], told["student"], told["seed"]) == ("fake:teacher.json", "fake:student.json", 0)
    assert (told["rows"], told["pairs"]) == (4, 8)
    assert told["verdicts"] == {"textvqa": {"teacher_only": 4, "student_right": 4}}
    assert told["sources"] == {"textvqa": "pool"}
    assert "Write one question" in told["annotate_prompts"]["textvqa"]
    assert told["judged_by"] in body and "(rule: judge)" in told["judged_by"]
    assert "Licence" in body
    assert str(shared.parent.parent) not in text


def test_large_images_are_spread_over_several_files(shared, tmp_path, monkeypatch):
    part = find_part("exports", "hf_dataset")
    monkeypatch.setattr(part, "_SHARD_BYTES", 1)
    assert len(rows(shared, "hf-dataset", tmp_path)) == 4
    shards = sorted((tmp_path / "data").iterdir())
    assert [path.name for path in shards] == [f"train-0000{number}.parquet" for number in range(4)]


# Evaluation logs


@pytest.fixture
def whole(project, trainable):
    """A finished run."""
    done("run", project / "run.yaml")
    return project / "runs" / "a"


def test_a_log_scored_again_gives_the_mean_of_the_scores(whole, project):
    done("export", whole, "--format", "evaluation-log")
    scores = json.loads((whole / "scores.json").read_text())["tasks"]["textvqa"]
    for model in ("before", "after", "teacher"):
        log = whole / "exports" / "evaluation-log" / f"textvqa-{model}.jsonl"
        mean = json.loads(done("score", scores["metric"], log).splitlines()[-1])
        assert mean["count"] == scores["n"] == 8
        assert 100 * mean["mean"] == pytest.approx(scores[model]["score"], abs=1e-4)
        for row in lines(log):
            assert row["score"] == textvqa_accuracy(row["prediction"], row["answers"]).value
            assert (row["task"], row["model"], row["metric"]) == ("textvqa", model, "textvqa_accuracy")
            assert (
                (project / "test" / "train_images" / row["image"]).is_file() and row["question"] and row["question_id"]
            )


def test_a_log_of_a_limited_evaluation_holds_the_questions_that_were_asked(project, trainable):
    said = yaml.safe_load((project / "run.yaml").read_text())
    said["evaluate"]["limit"] = 3
    (project / "run.yaml").write_text(yaml.safe_dump(said))
    done("run", project / "run.yaml")
    output = done("export", project / "runs" / "a", "--format", "evaluation-log")
    assert "textvqa-after 3, textvqa-before 3, textvqa-teacher 3" in output


def test_a_log_reads_the_questions_that_were_asked_and_touches_no_test_split(whole, project):
    done("export", whole, "--format", "evaluation-log")
    before = content(whole)
    (project / "test" / "TextVQA_0.5.1_val.json").unlink()
    assert done("export", whole, "--format", "evaluation-log").startswith("up to date: ")
    shutil.rmtree(whole / "exports" / "evaluation-log")
    done("export", whole, "--format", "evaluation-log")
    assert {name for name, data in content(whole).items() if before.get(name) != data} <= {
        "exports/evaluation-log/manifest.json"
    }
    manifest = whole / "tests" / "textvqa" / "manifest.json"
    said = json.loads(manifest.read_text())
    said["inputs"]["files"] = "others"
    for damage in (lambda: manifest.write_text(json.dumps(sealed(said))), manifest.unlink):
        damage()
        message = refusal("export", whole, "--format", "evaluation-log")
        assert "were made from other tests/textvqa" in message and f"First: parityalign evaluate {whole}" in message


def test_without_a_test_split_there_is_no_log(project, trainable):
    said = yaml.safe_load((project / "run.yaml").read_text())
    del said["tasks"]["textvqa"]["test"]
    (project / "run.yaml").write_text(yaml.safe_dump(said))
    done("run", project / "run.yaml")
    assert "has a test split" in refusal("export", project / "runs" / "a", "--format", "evaluation-log")


# What is refused, and what is left alone


@pytest.mark.parametrize(("stages", "first"), [(["intake"], "annotate"), (["intake", "annotate"], "identify")])
def test_an_unfinished_run_names_the_command_to_give_first(project, stages, first):
    run = begun(project, *stages)
    message = refusal("export", run, "--format", "llava")
    assert f"First: parityalign {first} {run}" in message
    assert not (run / "exports").exists()


def test_a_log_of_an_unevaluated_run_names_the_command_too(shared):
    assert f"First: parityalign evaluate {shared}" in refusal("export", shared, "--format", "evaluation-log")


def test_verdicts_on_other_pairs_are_refused(run, project):
    table(project / "teacher.json", WORDS)
    said = (project / "teacher.json").read_text().replace("What is written", "What is written here")
    (project / "teacher.json").write_text(said)
    done("annotate", run)
    assert f"First: parityalign identify {run}" in refusal("export", run, "--format", "llava")


def test_unknown_formats_and_folders_that_are_no_runs_are_refused(shared, tmp_path):
    assert "no export format 'lava'. Did you mean llava" in refusal("export", shared, "--format", "lava")
    assert "is not a run folder" in refusal("export", tmp_path, "--format", "llava")


@pytest.mark.parametrize(
    ("form", "option"),
    [
        ("hf-dataset", ["--in-place"]),
        *((form, [option]) for form in ("evaluation-log", "lmms-eval") for option in ("--in-place", "--prompted")),
        *((form, ["--what", "all"]) for form in ("evaluation-log", "lmms-eval")),
    ],
)
def test_an_option_that_would_do_nothing_in_a_format_is_refused(shared, form, option):
    message = refusal("export", shared, "--format", form, *option)
    assert " ".join(option) in message and form in message
    assert not (shared / "exports").exists()


def test_without_gaps_there_is_nothing_to_export_but_all_pairs_still_are(project):
    table(project / "student.json", WORDS)
    run = begun(project, *IDENTIFIED)
    assert "has no gaps" in refusal("export", run, "--format", "trl")
    assert not (run / "exports" / "trl").exists()
    assert len(rows(run, "trl", project / "out", "--what", "all")) == 8


def test_an_image_that_is_gone_is_named(run, project):
    (project / "pool" / "cafe.png").unlink()
    message = refusal("export", run, "--format", "llava")
    assert "cafe.png" in message and "is missing" in message


def test_an_export_that_is_up_to_date_is_left_alone_and_another_choice_makes_it_anew(run):
    assert done("export", run, "--format", "llava").startswith("export: ")
    before = {path: path.stat().st_mtime_ns for path in (run / "exports" / "llava").iterdir()}
    assert done("export", run, "--format", "llava").startswith("up to date: ")
    assert {path: path.stat().st_mtime_ns for path in (run / "exports" / "llava").iterdir()} == before
    assert done("export", run, "--format", "llava", "--prompted").startswith("export: ")


def test_an_export_takes_no_other_file_away(shared, tmp_path):
    out = tmp_path / "out"
    done("export", shared, "--format", "llava", "--out", out)
    (out / "model").mkdir()
    (out / "model" / "weights").write_text("dear")
    assert "holds model/weights, which no export wrote" in refusal(
        "export", shared, "--format", "llava", "--prompted", "--out", out
    )
    assert (out / "model" / "weights").read_text() == "dear"
    for taken in (shared.parent, shared, shared / "pairs"):
        assert "no export wrote" in refusal("export", shared, "--format", "llava", "--out", taken)
    assert "is a file" in refusal("export", shared, "--format", "llava", "--out", shared / "run.yaml")


def test_an_export_changes_nothing_of_the_run(run):
    before = content(run)
    done("export", run, "--format", "messages")
    after = content(run)
    assert {name: data for name, data in after.items() if not name.startswith("exports/")} == before


def test_an_export_that_was_cut_off_is_made_anew(run, monkeypatch):
    part = find_part("exports", "llava")
    dies = ExportFormat(lambda run, out: (out / "data.json").write_text("half") and 1 / 0, part.EXPORT.of)
    monkeypatch.setattr(part, "EXPORT", dies)
    with pytest.raises(ZeroDivisionError):
        export_run(load_config(run / "run.yaml"), "llava", everything=False, prompted=False, in_place=False, out=None)
    monkeypatch.undo()
    done("export", run, "--format", "llava")
    assert len(written("llava", run / "exports" / "llava")) == 4
