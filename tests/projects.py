"""A project on fake models: a configuration, what the models know, and the command line to run on it."""

import json
from pathlib import Path

import yaml
from typer.testing import CliRunner

from makers import speckle
from parityalign.cli.app import app

WORDS = ["stop", "exit", "open", "sale", "taxi", "bank", "post", "cafe"]


def table(path: Path, knows: list[str]) -> Path:
    """A fake model that reads these words, writes a pair on each picture and says `nothing` otherwise."""
    asks = "Write one question"
    rows = []
    for word in WORDS:
        for name in (f"{word}.png", f"{word}.jpg"):
            pair = f"Question: What is written?\nAnswer: {word}"
            rows.append({"image": name, "contains": asks, "text": pair})
            rows.append({"image": name, "contains": "What is", "text": word if word in knows else "nothing"})
    path.write_text(json.dumps({"replies": rows}))
    return path


def make_project(folder: Path) -> Path:
    """Pictures, a labelled split, a fake teacher and student, and the configuration `run.yaml`."""
    for number, word in enumerate(WORDS):
        speckle(folder / "pool" / f"{word}.png", seed=number)
        speckle(folder / "test" / "train_images" / f"{word}.jpg", seed=100 + number)
    rows = [
        {"question_id": number, "image_id": word, "question": "What is shown?", "answers": [word] * 10}
        for number, word in enumerate(WORDS)
    ]
    (folder / "test" / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": rows}))
    table(folder / "teacher.json", WORDS)
    table(folder / "student.json", WORDS[:4])
    configure(folder)
    return folder


def configure(project: Path, **changes) -> Path:
    """Writes `run.yaml`; `changes` replace whole sections."""
    said = {
        "run": "runs/a",
        "teacher": "fake:teacher.json",
        "student": "fake:student.json",
        "tasks": {"textvqa": {"images": "pool", "test": "test"}},
        "annotate": {"batch_size": 3},
        "identify": {"batch_size": 3},
        "evaluate": {"batch_size": 3, "resamples": 100},
        **changes,
    }
    path = project / "run.yaml"
    path.write_text(yaml.safe_dump(said))
    return path


def parityalign(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> str:
    result = parityalign(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: object, status: int = 2) -> str:
    result = parityalign(*arguments)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.stderr
