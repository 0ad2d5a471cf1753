"""`make bench-gpu` at tiny sizes on a CPU: all parts; what cannot run here says why, and the others go on."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpu import PARTS

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def measured(folder: Path, *options: str) -> tuple[int, dict[str, str], str]:
    """The status, what the table says of each part, and everything that was printed."""
    command = [sys.executable, str(BENCHMARK), "--tiny", "--folder", str(folder), *options]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    rows = [line.strip("| ").split(" | ", 1) for line in made.stdout.splitlines() if line.startswith("| ")]
    return made.returncode, {name: told for name, told in rows if name != "part"}, made.stdout + made.stderr


@pytest.mark.long
def test_all_parts_are_measured_or_say_what_they_lack(tmp_path):
    status, rows, said = measured(tmp_path, "--minutes", "25")
    assert status == 0, said
    failed = {name: told for name, told in rows.items() if told.startswith("failed: ")}
    without_trl = {name for name in rows if name.startswith("TRL") and find_spec("trl") is None}
    assert failed.keys() == without_trl | {"level, Qwen2-VL-2B, QLoRA"}, said
    assert all("No module named 'trl'" in failed[name] for name in without_trl)
    assert rows.keys() == PARTS.keys() and "no GPU, tiny sizes" in said
    assert "report True" in rows["a run to its report"] and "report True" in rows["a run with three terms of the loss"]


@pytest.mark.long
def test_when_the_time_is_over_the_table_says_so_of_each_part_that_is_left(tmp_path):
    status, rows, said = measured(tmp_path, "--minutes", "0", "annotate, Qwen2-VL-7B", "identify, SmolVLM-500M")
    assert status == 1 and "every part failed" in said
    assert set(rows.values()) == {"failed: the time was over"} and len(rows) == 2
