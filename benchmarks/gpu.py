"""The product at real size on one GPU beside plain transformers and TRL: speed, memory, how busy the GPU is.

    python benchmarks/gpu.py [--minutes 9.5] [--tiny] [--folder FOLDER] [--out docs/results-gpu.md] [PART ...]

Models of published size without trained weights and pictures of 1024x768; nothing is fetched. Each part is a process of
its own: if one fails, the others go on, and the table says why. Without a GPU, or with --tiny, sizes are tiny.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from parityalign import __version__
from real_size import asking, levelling, whole_run
from real_size.data import pictures
from real_size.models import PUBLISHED, write_model

TINY_SIDES = (320, 240)


class Work(NamedTuple):
    """Where a part works, and how much it does."""

    folder: Path
    tiny: bool

    def model(self, name: str) -> Path:
        """The folder of an untrained model."""
        return write_model(name, self.folder / name, tiny=self.tiny)

    def pictures(self, count: int, least: int = 4) -> list[Path]:
        """So many pictures; of a tiny trial a few."""
        if self.tiny:
            return pictures(self.folder / "pictures", least, TINY_SIDES)
        return pictures(self.folder / "pictures", count)


def _models(work: Work) -> dict[str, Any]:
    for name in PUBLISHED:
        work.model(name)
    return {"models": len(PUBLISHED)}


def _annotate(work: Work) -> dict[str, Any]:
    tokens = 8 if work.tiny else 96
    return asking.annotate(work.model("qwen2-vl-7b"), work.pictures(48), draws=4, tokens=tokens)


def _annotate_by_kinds(work: Work) -> dict[str, Any]:
    tokens = 8 if work.tiny else 48
    paths = work.pictures(32)
    return asking.identify(work.model("qwen2-vl-7b"), paths, questions=4, tokens=tokens, temperature=1.0)


def _identify(model: str, count: int, plain_part: int) -> Callable[[Work], dict[str, Any]]:
    def part(work: Work) -> dict[str, Any]:
        paths, shown = work.pictures(count), 1 if work.tiny else plain_part
        return asking.identify(work.model(model), paths, questions=3, tokens=16, plain_part=shown)

    return part


def _level(
    side: str, model: str, method: str, questions: int = 1, *, still: bool = False
) -> Callable[[Work], dict[str, Any]]:
    def part(work: Work) -> dict[str, Any]:
        rows, steps = (4, 3) if work.tiny else (32, 8)
        settings = {"method": method, "learning_rate": 1e-4, "max_steps": steps, "batch_size": rows}
        settings["questions_together"] = questions > 1
        trained = steps // levelling.EPOCHS_OF_STILL if still else steps
        count = -(-rows * (trained + 1) // questions)  # a little more, since some are held out
        paths = work.pictures(count, count)
        same: dict[str, Any] = {"questions": questions, "still": still}
        if side == "ours":
            settings["compile"] = True  # as trainings of more steps do
            return levelling.ours(work.folder, work.model(model), paths, settings, **same)
        workers = int(side.partition("-")[2] or 0)
        return levelling.trl(work.folder, work.model(model), paths, settings, workers=workers, **same)

    return part


def _asked_run(work: Work) -> dict[str, Any]:
    models = work.model("qwen2-vl-7b"), work.model("smolvlm-500m")
    return whole_run.identified(work.folder, *models, work.pictures(100))


def _whole_run(work: Work) -> dict[str, Any]:
    models = work.model("qwen2-vl-2b"), work.model("smolvlm-500m")
    return whole_run.levelled(work.folder, *models, work.pictures(200, 8), objective={"answer": 1.0})


def _all_terms(work: Work) -> dict[str, Any]:
    models = work.model("qwen2-vl-2b"), work.model("smolvlm-500m")
    terms = {"answer": 1.0, "confidence": 1.0, "attention": 1.0}
    return whole_run.levelled(work.folder, *models, work.pictures(60, 8), objective=terms)


PARTS: Mapping[str, Callable[[Work], dict[str, Any]]] = {
    "write the models": _models,
    "annotate, Qwen2-VL-7B": _annotate,
    "annotate by kinds, Qwen2-VL-7B": _annotate_by_kinds,
    "identify, SmolVLM-500M": _identify("smolvlm-500m", 512, 32),
    "identify, Qwen2-VL-7B": _identify("qwen2-vl-7b", 64, 4),
    "level, SmolVLM-500M, full": _level("ours", "smolvlm-500m", "full"),
    "TRL with 8 workers, SmolVLM-500M, full": _level("trl-8", "smolvlm-500m", "full"),
    "level, SmolVLM-500M, full, 3 questions a picture": _level("ours", "smolvlm-500m", "full", 3),
    "TRL with 8 workers, SmolVLM-500M, full, 3 questions a picture": _level("trl-8", "smolvlm-500m", "full", 3),
    "level, Qwen2-VL-2B, LoRA": _level("ours", "qwen2-vl-2b", "lora"),
    "TRL with 8 workers, Qwen2-VL-2B, LoRA": _level("trl-8", "qwen2-vl-2b", "lora"),
    "level, Qwen2-VL-2B, LoRA, still tower": _level("ours", "qwen2-vl-2b", "lora", still=True),
    "TRL with 8 workers, Qwen2-VL-2B, LoRA, still tower": _level("trl-8", "qwen2-vl-2b", "lora", still=True),
    "level, SmolVLM-500M, full, still tower": _level("ours", "smolvlm-500m", "full", still=True),
    "TRL with 8 workers, SmolVLM-500M, full, still tower": _level("trl-8", "smolvlm-500m", "full", still=True),
    "a run to its report": _whole_run,
    "intake to identify of a run": _asked_run,
    "level, Qwen2-VL-2B, QLoRA": _level("ours", "qwen2-vl-2b", "qlora"),
    "a run with three terms of the loss": _all_terms,
}
"""In the order of their worth: what comes last is left out first when the time is over."""


def main() -> None:
    """Does every part as far as the time allows, prints the table and writes the page; as a child, one part."""
    asked = _arguments()
    if asked.child:
        print(json.dumps(PARTS[asked.child](Work(Path(asked.folder), asked.tiny))))
        return
    ends = time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory(prefix="bench-gpu-", dir=asked.folder) as folder:
        rows = {name: _done(name, folder, ends - time.monotonic(), asked) for name in asked.parts or PARTS}
    page = _page(rows, tiny=asked.tiny)
    if asked.out:
        Path(asked.out).write_text(page)
    print(page)
    if all("failed" in told for told in rows.values()):
        sys.exit("every part failed")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the product at real size on one GPU.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all without one: {'; '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--tiny", action="store_true", default=not torch.cuda.is_available())
    parser.add_argument("--folder", help="where models and pictures are written; default: the temporary folder")
    parser.add_argument("--out", help="where the page is written, besides being printed")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if unknown := [name for name in asked.parts if name not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are {'; '.join(PARTS)}")
    return asked


def _done(name: str, folder: str, left: float, asked: argparse.Namespace) -> dict[str, Any]:
    """What a part measured, or why it did not."""
    if left < 5:
        return {"failed": "the time was over"}
    command = [sys.executable, __file__, "--child", name, "--folder", folder, *(["--tiny"] if asked.tiny else [])]
    began = time.monotonic()
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"did not end within {left:.0f} s"}
    lines = [line for line in made.stdout.splitlines() if line.startswith("{")]
    if made.returncode or not lines:
        print(f"--- {name}\n{made.stderr[-2000:]}", file=sys.stderr, flush=True)
        return {"failed": (made.stderr.strip().splitlines() or ["ended without a word"])[-1][:200]}
    told: dict[str, Any] = json.loads(lines[-1])
    print(name, told, flush=True)
    return told | {"took_s": time.monotonic() - began}


def _page(rows: Mapping[str, Mapping[str, Any]], *, tiny: bool) -> str:
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    import transformers

    head = (
        "# At real size on one GPU\n\n"
        f"`make bench-gpu` on {datetime.now(UTC):%Y-%m-%d}: {card}{', tiny sizes' if tiny else ''}; parityalign "
        f"{__version__}, torch {torch.__version__}, transformers {transformers.__version__}. Published architectures "
        "without trained weights, pictures of 1024x768, for Qwen2-VL at most a megapixel, for SmolVLM its own twelve "
        "tiles and the whole. *Ratio* is our time divided by that of plain `generate` in batches of 16 pictures (asked "
        "a part where that takes long, and reckoned up); *busy* is the share of the time in which a kernel ran, of "
        "levelling in steps without a look or a checkpoint. Our levelling has compiled layers. With a still tower, "
        "which learns on neither side, two epochs are trained.\n\n"
        "| part | what was measured |\n|---|---|\n"
    )
    return head + "".join(f"| {name} | {_in_words(told)} |\n" for name, told in rows.items())


def _in_words(told: Mapping[str, Any]) -> str:
    if "failed" in told:
        return f"failed: {told['failed']}".replace("|", "/")
    return ", ".join(f"{key} {_number(value)}" for key, value in told.items() if value is not None)


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
