"""`make bench-gpu` at tiny sizes on a CPU; without a GPU the target itself is the trial of all parts."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.long
@pytest.mark.skipif(find_spec("trl") is not None, reason="TRL is installed, so nothing is missing")
def test_a_part_that_cannot_run_is_told_and_the_others_are_measured(tmp_path):
    parts = ("TRL, SmolVLM-500M, full", "identify, SmolVLM-500M")
    command = [sys.executable, str(BENCHMARK), "--tiny", "--folder", str(tmp_path), *parts]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert made.returncode == 0, made.stderr
    assert f"| {parts[0]} | failed: " in made.stdout and "No module named 'trl'" in made.stdout
    assert f"| {parts[1]} | replies 12, ours_s " in made.stdout and "no GPU, tiny sizes" in made.stdout
