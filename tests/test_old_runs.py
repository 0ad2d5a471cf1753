"""A run folder of version 0.1.0 opens, or is refused in words that say what to do; nothing of it is lost unsaid.

`golden/run-0.1` was made by version 0.1.0 on fake models (`projects.py`): a project, and the folder of its whole run.
"""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from makers import content
from parityalign.config import LevelSettings, results_of, run_yaml
from parityalign.core import MANIFEST, manifest_digest
from parityalign.core.manifests import difference
from projects import done, refusal

GOLDEN = Path(__file__).parent / "golden" / "run-0.1"
HERE = "PROJECT"
"""Stands in the stored files for the folder of the project."""
STAGES = ("intake", "annotate", "identify", "level", "evaluate")


@pytest.fixture
def old(tmp_path):
    """The project where it would lie if it had been made in this place; its run is `runs/a`."""
    project = tmp_path / "project"
    shutil.copytree(GOLDEN, project)
    run = project / "runs" / "a"
    run.parent.mkdir()
    (project / "run-folder").rename(run)
    changed = {}
    for path in run.rglob(MANIFEST):
        manifest = json.loads(path.read_text())
        before = manifest_digest(manifest)
        for name, entry in manifest["files"].items():
            file = path.parent / name
            file.write_text(file.read_text().replace(HERE, str(project)))
            entry |= {"bytes": file.stat().st_size, "sha256": sha256(file.read_bytes()).hexdigest()}
        path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        changed[before] = manifest_digest(manifest)
    for path in run.rglob(MANIFEST):
        text = path.read_text()
        for before, now in changed.items():
            text = text.replace(before, now)
        path.write_text(text)
    return project


def old_settings(path: Path) -> list[str]:
    """What a configuration gives of the settings that are no more."""
    said = yaml.safe_load(path.read_text())
    return [name for name in run_yaml.REMOVED if given(said, name.split("."))]


def given(said: object, place: list[str]) -> bool:
    return not place or (isinstance(said, dict) and place[0] in said and given(said[place[0]], place[1:]))


def without_old_settings(path: Path) -> None:
    said = yaml.safe_load(path.read_text())
    for name in old_settings(path):
        *sections, key = name.split(".")
        section = said
        for each in sections:
            section = section[each]
        del section[key]
    path.write_text(yaml.safe_dump(said, sort_keys=False))


def said_of(stage: str, output: str) -> str:
    return next(each for each in output.splitlines() if each.startswith((f"{stage}: done", f"{stage}: up to date")))


@pytest.mark.parametrize("by", ["run.yaml", "runs/a/run.yaml"])
def test_a_folder_with_old_settings_is_refused_with_all_their_new_names_and_left_alone(old, by):
    without_old_settings(old / "run.yaml")
    before = content(old)
    message = refusal("run", old / by)
    assert content(old) == before
    assert f"{old / 'runs' / 'a' / 'run.yaml'}" in message
    assert "An earlier version of parityalign made this run folder" in message
    found = old_settings(old / "runs" / "a" / "run.yaml")
    assert "level.rounds" in found
    for name in found:  # whatever was renamed or removed since
        assert f"'{name}' {run_yaml.REMOVED[name]}" in message
    assert "Nothing was changed in it" in message and "done again" in message


def test_every_command_on_the_folder_says_so_too(old):
    for command in ("annotate", "identify", "level", "evaluate"):
        assert "An earlier version of parityalign made this run folder" in refusal(command, old / "runs" / "a")


def test_once_they_are_corrected_the_run_goes_on_and_says_what_is_done_again_and_why(old, trainable):
    run = old / "runs" / "a"
    pairs = pairs_of(run)
    for path in (old / "run.yaml", run / "run.yaml"):
        without_old_settings(path)
    output = done("run", old / "run.yaml")
    told = {stage: said_of(stage, output) for stage in STAGES}
    # Files of the pool are new where they were copied to, so intake looks at them again. Version 0.1 named test splits
    # otherwise, and images by their files; what was made from them is made again, and comes to the same.
    for stage, because in {
        "intake": "its input images of textvqa changed",
        "annotate": "its input images changed",
        # The defaults are others.
        "identify": 'identify.rule was "metric", is "judge"; verify.least_likely (0.1) matters now; verify.least_sure '
        "(0.1) matters now; its input pairs changed",
        "level": "level.rounds",
        "evaluate": "its input tests/textvqa was added or removed",
    }.items():
        assert "done again: " in told[stage] and because in told[stage]
    now = pairs_of(run)
    assert now.keys() == pairs.keys()
    assert all(now[key] == {**now[key], **pairs[key], "image": ""} for key in pairs)
    again = done("run", run / "run.yaml")
    assert all("up to date" in said_of(stage, again) for stage in STAGES)


def test_what_is_done_again_stays_as_it_was_until_its_successor_is_whole(old, trainable):
    run = old / "runs" / "a"
    before = {name: content(run / name) for name in ("pairs", "verdicts", "student")}
    for path in (old / "run.yaml", run / "run.yaml"):
        without_old_settings(path)
    (old / "teacher.json").write_text('{"replies": []}')  # a teacher that answers nothing usable
    refusal("run", old / "run.yaml", status=1)
    assert {name: content(run / name) for name in before} == before


def pairs_of(run: Path) -> dict[str, dict]:
    """The pairs by image, without their ids, which hang on the path of the fake teacher."""
    rows = [json.loads(line) for line in (run / "pairs" / "pairs.jsonl").read_text().splitlines()]
    return {row["image_id"]: {key: value for key, value in row.items() if key != "pair_id"} for row in rows}


@pytest.mark.parametrize("before", ["gaps", "auto", "random"])
@pytest.mark.parametrize("now", ["gaps", "auto"])
def test_a_student_that_was_trained_on_gaps_is_the_one_of_auto_and_the_other_way_round(before, now):
    wanted = results_of(LevelSettings(select=now))
    made, planned = (
        {"settings": {f"level.{name}": value for name, value in settings.items()}, "inputs": {}, "version": 1}
        for settings in (wanted | {"select": before}, wanted)
    )
    assert (difference(made, planned) is None) == (before != "random")
