"""Levelling beside TRL's SFTTrainer on the same rows and weights: examples a second and peak memory.

    python benchmarks/level.py [--model smolvlm-500m] [--method full] [--still] [--steps 6] [--rows 16]

Real classes and pictures of 1024x768, with the tiny sizes that a CPU can train. Each side has a process of its own:
ours, TRL without and with workers that prepare its pictures, ours again. Needs the package trl.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from real_size.data import pictures
from real_size.levelling import EPOCHS_OF_STILL, ours, trl
from real_size.models import PUBLISHED, write_model


def main() -> None:
    """Runs both sides and prints what they took; as a child, one side."""
    asked = _arguments()
    if asked.side:
        print(json.dumps(_side(asked)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-level-", dir=asked.folder) as folder:
        asked.folder = folder
        sides = {side: _child(side, asked) for side in ("ours", "trl", "trl-workers", "ours-again")}
    for name, told in sides.items():
        speed = f"{told['examples_per_s']:7.2f} examples/s  {told['step_s']:6.2f} s a step"
        print(f"{name:12} {speed}  {told['peak_gb']:.2f} GB")
    best = max((sides["trl"], sides["trl-workers"]), key=lambda told: float(told["examples_per_s"]))
    mean = (sides["ours"]["examples_per_s"] + sides["ours-again"]["examples_per_s"]) / 2
    print(f"ours / the better of TRL's: {mean / best['examples_per_s']:.2f} times the examples a second, ", end="")
    print(f"{sides['ours']['peak_gb'] / best['peak_gb']:.2f} times the peak memory")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times levelling against TRL's SFTTrainer.")
    parser.add_argument("--model", choices=sorted(PUBLISHED), default="smolvlm-500m")
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    parser.add_argument(
        "--still", action="store_true", help="the tower learns on neither side, and two epochs are taken"
    )
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rows", type=int, default=16, help="of a step")
    parser.add_argument("--folder", help="where models and pictures are written; default: the temporary folder")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


def _child(side: str, asked: argparse.Namespace) -> dict[str, Any]:
    told = [f"--{name}={getattr(asked, name)}" for name in ("model", "method", "steps", "rows", "folder")]
    told += ["--still"] if asked.still else []
    made = subprocess.run(
        [sys.executable, __file__, *told, "--side", side], capture_output=True, text=True, check=False
    )
    if made.returncode:
        print(made.stderr[-3000:], file=sys.stderr)
        sys.exit(f"{side} failed")
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


def _side(asked: argparse.Namespace) -> dict[str, Any]:
    folder = Path(asked.folder)
    student = write_model(asked.model, folder / asked.model, tiny=True)
    epochs = EPOCHS_OF_STILL if asked.still else 1
    paths = pictures(folder / "pictures", asked.rows * asked.steps // epochs)
    level = {"method": asked.method, "learning_rate": 1e-4, "max_steps": asked.steps, "batch_size": asked.rows}
    if asked.side.startswith("trl"):
        workers = 2 if asked.side.endswith("workers") else 0
        return trl(folder, student, paths, level, workers=workers, still=asked.still)
    (folder / asked.side).mkdir()
    return ours(folder / asked.side, student, paths, level, still=asked.still)


if __name__ == "__main__":
    main()
