"""How fast intake is, and how its memory grows with the number of images.

Draws small pictures once, then takes in a small and a large pool, each in a fresh process:

    python benchmarks/intake.py [--small 10000] [--large 100000] [--folder FOLDER]

The pictures are noise of a few pixels drawn large, so no two are alike and each is decoded, hashed and compared.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from PIL import Image

from parityalign.config.schema import IntakeSettings
from parityalign.core import RunFolder
from parityalign.data.open import open_source
from parityalign.stages.intake import sort_images

SIDE_PIXELS, NOISE_PIXELS = 96, 6
PER_FOLDER = 1000


def main() -> None:
    """Draws, measures both pools and prints the two memory figures with their ratio."""
    asked = _arguments()
    if asked.measure:
        print(json.dumps(_measure(Path(asked.folder), asked.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-intake-", dir=asked.folder) as folder:
        _draw(Path(folder), asked.large)
        peaks = [_in_a_fresh_process(folder, count) for count in (asked.small, asked.large)]
    print(f"peak memory at {asked.large:,} images: {peaks[1] / peaks[0]:.3f} times that at {asked.small:,}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times intake and measures its memory.")
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--folder", help="where the pictures are drawn; default: the system's temporary folder")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _draw(folder: Path, count: int) -> None:
    for number in range(count):
        if number % PER_FOLDER == 0:
            (folder / f"pool/{number // PER_FOLDER:04}").mkdir(parents=True)
        noise = Random(number).randbytes(3 * NOISE_PIXELS**2)
        picture = Image.frombytes("RGB", (NOISE_PIXELS, NOISE_PIXELS), noise).resize((SIDE_PIXELS, SIDE_PIXELS))
        picture.save(folder / f"pool/{number // PER_FOLDER:04}/{number:07}.jpg")


def _in_a_fresh_process(folder: str, count: int) -> int:
    command = [sys.executable, __file__, "--folder", folder, "--measure", str(count)]
    told = json.loads(subprocess.check_output(command))
    print(
        f"{told['images']:,} images: {told['images'] / told['seconds']:,.0f} a second, "
        f"peak memory {told['peak'] / 1024:,.1f} MiB, {told['counts']}",
        flush=True,
    )
    return int(told["peak"])


def _measure(folder: Path, count: int) -> dict[str, object]:
    """Takes in the first `count` images; the peak is in KiB, as Linux gives it, where a process begins with that of the
    one that started it: so the drawing process must stay the smaller."""
    sources = [open_source(str(folder / f"pool/{place:04}")) for place in range(-(-count // PER_FOLDER))]
    with RunFolder(folder / f"run-{count}") as run:
        made = run.artifact("images", inputs={}, settings={})
    began = time.monotonic()
    digests = [source.digest() for source in sources]
    sort_images(made, {"bench": sources}, {}, settings=IntakeSettings(), progress=lambda step, done, total: None)
    return {
        "images": sum(made.manifest["counts"].values()),
        "seconds": time.monotonic() - began,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "counts": made.manifest["counts"],
        "folders": len(digests),
    }


if __name__ == "__main__":
    main()
