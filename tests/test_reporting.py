"""A training is followed: in the run's events, and in other programs, which are read with their own readers."""

import json
import os
import subprocess
import sys

import pytest

import tiny
from makers import speckle
from parityalign.config import LevelSettings
from parityalign.config.base import results_of
from parityalign.core import EXAMPLES_A_SECOND, HELD_OUT_LOSS, LEARNING_RATE, TRAINING_LOSS, Pair
from parityalign.pipeline import preflight
from parityalign.training.train import make_leveller
from projects import configure, refusal
from test_training import Watching

STEPS = 4


def trained(folder, **choices):
    """A tiny training; returns what it told, by name and step."""
    student = tiny.fast_vlm(folder / "student")
    pairs = [
        Pair(
            pair_id=f"p{n}", image_id=f"i{n}", image=str(speckle(folder / "pool" / f"{n}.png", seed=n)), task="toy",
            question="what is written", answer="tea", teacher="t",
        )
        for n in range(4)
    ]  # fmt: skip
    choices = {"method": "full", "max_steps": STEPS, "batch_size": 2, "learning_rate": 1e-3, **choices}
    settings = LevelSettings(epochs=1, lr_multipliers={"vision": 0.5}, patience=9, **choices)
    watching = Watching()
    level = make_leveller(
        str(student), {"toy": "{question}"}, settings=settings, objective=tiny.ANSWER, seed=0, progress=watching
    )
    level(pairs, pairs[:1], folder / "out")
    return watching.values


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"))


def test_rate_and_speed_are_told_beside_the_losses(told):
    assert [*told[TRAINING_LOSS]] == [1, 2, 3, 4]
    rates = [*told[LEARNING_RATE].values()]
    assert max(rates) == pytest.approx(1e-3) and rates[-1] < rates[1]  # warm-up, then a cosine
    assert [*told[EXAMPLES_A_SECOND]] == [2, 3, 4] and min(told[EXAMPLES_A_SECOND].values()) > 0


def test_a_reporter_changes_no_result():
    plain, reported = (LevelSettings(report_to=names) for names in ((), "tensorboard"))
    assert reported.report_to == ("tensorboard",)
    assert results_of(plain, "python") == results_of(reported, "python")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_reporter_without_its_package_is_told_before_the_run_begins(project, monkeypatch, name):
    monkeypatch.setattr(preflight, "find_spec", lambda _: None)
    message = refusal("run", configure(project, level={"method": "full", "report_to": [name]}))
    assert f"level.report_to: {name} needs the package {name}" in message
    assert not (project / "runs" / "a" / "images").exists()


def test_tensorboard_shows_the_curves_of_a_training(tmp_path, told):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained(tmp_path, report_to=["tensorboard"])
    found = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = {name: {each.step: each.value for each in found.Scalars(name)} for name in found.Tags()["scalars"]}
    assert [*shown["train/loss"].values()] == pytest.approx([*told[TRAINING_LOSS].values()], rel=1e-5)
    assert [*shown["train/learning_rate"].values()] == pytest.approx([*told[LEARNING_RATE].values()], rel=1e-5)
    held_out = {step: value for step, value in told[HELD_OUT_LOSS].items() if step}
    assert shown["eval/loss"] == pytest.approx(held_out, rel=1e-5)
    assert "train/examples_per_second" in shown


def test_trackio_shows_the_curves_of_a_training(tmp_path, told, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
    trained(tmp_path / "signs", report_to=["trackio"])
    asked = [
        sys.executable,
        "-m",
        "trackio.cli",
        "get",
        "metric",
        "--json",
        "--project",
        "parityalign",
        "--run",
        "signs",
    ]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    shown = subprocess.run(
        [*asked, "--metric", "train/loss"], env=environment, capture_output=True, text=True, check=True
    )
    losses = [each["value"] for each in json.loads(shown.stdout)["values"]]
    assert losses == pytest.approx([*told[TRAINING_LOSS].values()], rel=1e-5)
