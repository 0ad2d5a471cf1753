"""Names of what lies in a run folder, and where the bundled models lie."""

from pathlib import Path
from typing import Final

CONFIG: Final = "run.yaml"
SCORES: Final = "scores.json"
CONTROLS: Final = "controls.json"
REPORT: Final = "report.html"
TESTS: Final = "tests"
"""Folder of the test splits, as they are scored."""
SERVER: Final = "server"
"""Folder of the ledger of what servers were asked."""
DISCREPANCY_FOLDER: Final = "discrepancy"
"""Folder of what the two models are compared by."""
PAIR_DISCREPANCIES: Final = "pairs.jsonl"
"""In that folder: how the two models differ, one line a pair."""

DEMO_DATA: Final = "data"
"""Folder of a run that `parityalign demo` draws its pictures into; no stage writes there."""
DRAWN: Final = "drawn.json"
"""Marks a folder that the demo has drawn into."""

EMBEDDED_MODELS = Path(__file__).parent.parent / "demo" / "models"
"""The folder of the bundled models; `embedded:NAME` is `hf:` on the folder NAME in it."""
