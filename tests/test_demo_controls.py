"""The demo's controls, end to end: bundled models, drawn pictures, two optimiser steps."""

import json

import pytest
import yaml

from parityalign.cli import run_commands
from parityalign.core import CONTROLS, DEMO_DATA
from parityalign.stages import level
from projects import done

CONTROLS_OF_THE_TABLE = ["without replay", "all pairs", "random pairs", "true labels", "format only"]


@pytest.fixture
def tiny_demo(tmp_path, monkeypatch):
    """The demo on two of its tasks; `--pictures 10` is ten pictures in a pool and two in a test split."""
    said = yaml.safe_load(run_commands.DEMO_CONFIG.read_text())
    said["tasks"] = {name: said["tasks"][name] for name in ("textvqa", "chartqa")}
    said["level"] |= {"epochs": 1, "max_steps": 2, "batch_size": 4}
    said["annotate"]["pairs_per_image"] = 2
    said["evaluate"] |= {"resamples": 100, "speed_questions": 0}
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(said))
    monkeypatch.setattr(run_commands, "DEMO_CONFIG", tmp_path / "demo.yaml")
    monkeypatch.setattr(level, "is_better", lambda *_: True)  # two steps teach too little to be sure of it
    return tmp_path / "run"


@pytest.mark.long
def test_the_demo_trains_and_scores_every_control_of_the_table(tiny_demo):
    output = done("demo", "--run", tiny_demo, "--pictures", "10", "--controls")
    found = json.loads((tiny_demo / CONTROLS).read_text())
    assert [row["name"] for row in found["controls"]] == CONTROLS_OF_THE_TABLE
    steps = json.loads((tiny_demo / "student" / "manifest.json").read_text())["result"]["steps"]
    for row in found["controls"]:
        assert row["steps"] == steps == 2, "as many steps as the run took"
        assert row["pairs"] > 0
        assert sorted(row["tasks"]) == ["chartqa", "textvqa"]
        assert row["name"] in output
        assert (tiny_demo / "controls" / row["name"].replace(" ", "-") / "student" / "model.safetensors").is_file()
    precision = found["gap_precision"]
    assert 0 <= precision["right"] <= precision["n"] and precision["n"] > 0
    assert "true labels" in (tiny_demo / "report.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in (tiny_demo / "controls").rglob("*") if path.is_file()}
    done("demo", "--run", tiny_demo, "--pictures", "10", "--controls")
    assert before == {path: path.stat().st_mtime_ns for path in before}, "finished controls are not made again"
    assert (tiny_demo / DEMO_DATA).is_dir()
