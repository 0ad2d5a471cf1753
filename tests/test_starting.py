"""A run folder is the run's alone: what the user gave to the run is neither in it nor around it, and stays."""

import shutil
from pathlib import Path

import pytest

from makers import content
from parityalign.config.schema import RunConfig, TaskData
from parityalign.core.errors import UserError
from parityalign.core.run_folder import RunFolder
from parityalign.pipeline.preflight import refuse_shared_folder
from projects import configure, done, refusal

ROLES = ("teacher", "student")


def given(run: Path, images: str, **changes: object) -> RunConfig:
    said = {"run": run, "teacher": "embedded:teacher", "student": "embedded:student", **changes}
    return RunConfig(**{"tasks": {"textvqa": TaskData(images=(images,))}, **said})


def is_refused(config: RunConfig) -> str:
    with pytest.raises(UserError) as problem:
        refuse_shared_folder(config)
    return str(problem.value)


@pytest.fixture
def photographs(project):
    """A project whose pool is called as the folder that intake makes."""
    (project / "pool").rename(project / "images")
    configure(project, run=".", tasks={"textvqa": {"images": "images"}})
    return project


# Nothing is deleted


@pytest.mark.parametrize(("command", "named"), [("run", "run.yaml"), ("intake", "."), ("annotate", ".")])
def test_photographs_beside_the_configuration_survive_a_run_in_the_same_folder(photographs, command, named):
    before = content(photographs)
    message = refusal(command, photographs / named)
    assert f"the run folder {photographs} overlaps with inputs of the run" in message
    assert f"it contains 'tasks.textvqa.images': {photographs / 'images'}" in message
    assert "such as runs/NAME" in message
    assert content(photographs) == before


def test_redo_deletes_no_photographs_either(photographs):
    before = content(photographs)
    refusal("run", photographs / "run.yaml", "--redo")
    assert content(photographs) == before


def test_photographs_that_a_list_names_are_not_taken_for_a_stage_s_folder(project):
    (project / "runs" / "a" / "images").mkdir(parents=True)
    photo = (project / "pool" / "stop.png").rename(project / "runs" / "a" / "images" / "stop.png")
    (project / "list.txt").write_text(str(photo))
    shutil.copy(configure(project, tasks={"textvqa": {"images": "list.txt"}}), project / "runs" / "a")
    before = photo.read_bytes()
    assert "no run wrote it" in refusal("run", project / "run.yaml", "--redo")
    assert photo.read_bytes() == before


def test_all_that_is_shared_is_told_at_once(project):
    message = refusal("run", configure(project, run="."))
    for setting, place in (
        ("tasks.textvqa.images", "pool"),
        ("tasks.textvqa.test", "test"),
        ("teacher", "teacher.json"),
        ("student", "student.json"),
    ):
        assert f"it contains {setting!r}: {project / place}" in message


# What counts as shared


@pytest.mark.parametrize(
    ("run", "relation"), [("p", "is"), ("p/sub/run", "lies in"), (".", "contains"), ("p/..", "contains")]
)
def test_a_pool_that_is_around_or_in_the_run_folder_is_refused(tmp_path, run, relation):
    (tmp_path / "p").mkdir()
    message = is_refused(given(tmp_path / run, str(tmp_path / "p")))
    assert f"it {relation} 'tasks.textvqa.images': {tmp_path / 'p'}" in message


@pytest.mark.parametrize("run", ["p-of-run", "runs/p", "not/yet/there"])
def test_a_folder_of_its_own_is_not_refused(tmp_path, run):
    (tmp_path / "p").mkdir()
    refuse_shared_folder(given(tmp_path / run, str(tmp_path / "p")))


def test_names_on_the_hub_and_bundled_models_are_nobody_s_folders(tmp_path):
    config = given(tmp_path, "hf:owner/name:train", teacher="hf:owner/teacher", student="embedded:student")
    refuse_shared_folder(config.model_copy(update={"run": Path(__file__).parent.parent}))


@pytest.mark.parametrize(
    "images",
    ["list.txt", "rows.jsonl", "a.tar", "a.parquet", "*.tar", "**/b.parquet", "hf:{}", "hf:{}/a.parquet:train"],
)
def test_lists_shards_and_copies_in_the_run_folder_are_refused(tmp_path, images):
    for name in ("list.txt", "rows.jsonl", "a.tar", "a.parquet", "deep/b.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    place = images.format(tmp_path) if images.startswith("hf:") else str(tmp_path / images)
    assert "'tasks.textvqa.images'" in is_refused(given(tmp_path, place))


@pytest.mark.parametrize("test", ["tests", "mine.jsonl", "hf:{}/copy", "hf:{}/copy:validation"])
def test_a_test_split_in_the_run_folder_is_refused(tmp_path, test):
    run, pool = tmp_path / "run", tmp_path / "pool"
    test = test.format(run) if test.startswith("hf:") else str(run / test)
    config = given(run, str(pool), tasks={"textvqa": TaskData(images=(str(pool),), test=test)})
    assert "it contains 'tasks.textvqa.test'" in is_refused(config)


@pytest.mark.parametrize("role", ROLES)
def test_a_model_s_folder_in_or_around_the_run_folder_is_refused(tmp_path, role):
    model = {role: f"hf:{tmp_path / 'run' / 'student'}"}
    assert f"it contains {role!r}" in is_refused(given(tmp_path / "run", "/elsewhere", **model))
    model = {role: f"hf:{tmp_path}"}
    assert f"it lies in {role!r}" in is_refused(given(tmp_path / "run", "/elsewhere", **model))


# Links


def test_a_run_folder_that_is_reached_by_a_link_is_compared_where_it_lies(tmp_path):
    (tmp_path / "real" / "images").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    message = is_refused(given(tmp_path / "link", str(tmp_path / "real" / "images")))
    assert f"{tmp_path / 'link'} (which leads to {tmp_path / 'real'})" in message


def test_a_pool_that_is_reached_by_a_link_is_compared_where_it_lies(tmp_path):
    (tmp_path / "run" / "images").mkdir(parents=True)
    (tmp_path / "link").symlink_to("run/images")
    message = is_refused(given(tmp_path / "run", str(tmp_path / "link")))
    assert f"{tmp_path / 'link'} (which leads to {tmp_path / 'run' / 'images'})" in message


def test_a_run_folder_in_a_pool_behind_a_link_is_refused(tmp_path):
    (tmp_path / "pool" / "runs").mkdir(parents=True)
    (tmp_path / "link").symlink_to("pool/runs")
    assert "it lies in" in is_refused(given(tmp_path / "link" / "a", str(tmp_path / "pool")))


def test_a_link_in_the_run_folder_to_a_pool_elsewhere_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "photographs").mkdir()
    (tmp_path / "run" / "images").symlink_to("../photographs")
    assert "it contains" in is_refused(given(tmp_path / "run", str(tmp_path / "run" / "images")))


# The demo's own pictures; `test_cli.py` resumes a demo


@pytest.mark.slow
@pytest.mark.parametrize(("marked", "refused"), [(True, False), (False, True)])
def test_only_pools_that_the_demo_has_drawn_may_lie_in_its_run_folder(project, trainable, marked, refused):
    data = project / "run" / "data"
    data.mkdir(parents=True)
    (project / "pool").rename(data / "pool")
    if marked:
        (data / "drawn.json").touch()
    with RunFolder(project / "run"):
        pass
    config = configure(project, run="run", tasks={"textvqa": {"images": "run/data/pool"}})
    message = refusal("run", config) if refused else done("run", config)
    assert ("it contains 'tasks.textvqa.images'" in message) == refused
