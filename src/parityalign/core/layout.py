"""Names of files and folders in a run folder, and the folder of the bundled models."""

from pathlib import Path
from typing import Final

CONFIG: Final = "run.yaml"
EVENTS: Final = "events.jsonl"
"""What was begun, finished and redone, and when; what training measured."""
MEASURED: Final = "measured"
"""Kind of an event: a value of the training after so many optimiser steps."""
WORKING: Final = ".progress.json"
"""The step that a process is at, while one works in the folder."""
STUDENT_FOLDER: Final = "student"
"""Folder of the levelled student."""
SCORES: Final = "scores.json"
CONTROLS: Final = "controls.json"
REPORT: Final = "report.html"
TESTS: Final = "tests"
"""Folder of the test splits as they are scored."""
ANSWERS: Final = "answers.sqlite"
"""The answer store."""
DISCREPANCY_FOLDER: Final = "discrepancy"
"""Folder of the comparison of the two models."""
PAIR_DISCREPANCIES: Final = "pairs.jsonl"
"""In that folder: how the two models differ, one line a pair."""

SERVERS: Final = "server"
"""Folder of the logs of servers that the run started; no artifact, and nothing is read from it."""

TENSORBOARD: Final = "tensorboard"
"""Folder of the training's curves for TensorBoard, where `level.report_to` asks for them."""

PREPARED: Final = ".prepared"
"""Folder of prepared pictures, which may be deleted at any time."""

CARD: Final = "README.md"
"""In a levelled student's folder: its model card, written anew with each report."""
CARD_FIGURE: Final = "scores.svg"
"""The card's picture."""

PREVIEW: Final = "preview.html"
"""The page of `parityalign preview`."""

DEMO_DATA: Final = "data"
"""Folder of the demo's pictures; no stage writes there."""
DRAWN: Final = "drawn.json"
"""File that marks a folder of the demo's pictures."""

EMBEDDED_MODELS = Path(__file__).parent.parent / "demo" / "models"
"""The folder of the bundled models; `embedded:NAME` is `hf:` on the folder NAME in it."""
