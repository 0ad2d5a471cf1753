"""Runs a small demo with the parityalign that this Python has installed, and looks whether it ended well.

    PYTHON -P tools/installed_demo.py

PYTHON is that of an environment into which the wheel was installed; `-P` keeps the folder of this file off its path.
The demo works in a temporary folder.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path

PICTURES = 40


def main() -> None:
    """Ends with a message where something is not as it should be."""
    bin, (package,) = Path(sys.executable).parent, find_spec("parityalign").submodule_search_locations
    if not Path(package).is_relative_to(sys.prefix):
        sys.exit(f"{package} is not installed in {sys.prefix}")
    with tempfile.TemporaryDirectory() as away:
        run = Path(away) / "run"
        command = [bin / "parityalign", "demo", "--run", run, "--pictures", str(PICTURES)]
        subprocess.run(command, cwd=away, check=True)
        refuse_unfinished(run)
    print(f"the demo of parityalign {version('parityalign')} ended well, with {', '.join(direct_dependencies())}")


def direct_dependencies() -> list[str]:
    """Names and versions of the packages that a plain installation asks for."""
    plain = [said for said in requires("parityalign") if "extra ==" not in said]
    return [f"{name} {version(name)}" for name in (re.match(r"[\w.-]+", said)[0] for said in plain)]


def refuse_unfinished(run: Path) -> None:
    """Ends with a message if a run has not all of its scores, or no report."""
    scores = json.loads((run / "scores.json").read_text())
    counts = {name: task["n"] for name, task in scores["tasks"].items()}
    if len(counts) != 4 or not all(counts.values()):
        sys.exit(f"questions scored for each task: {counts}")
    if "</html>" not in (run / "report.html").read_text():
        sys.exit("the report is not whole")


if __name__ == "__main__":
    main()
