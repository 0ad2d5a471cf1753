"""Pictures, of 1024x768 unless told otherwise, and pairs about them that a run reads as pairs of one's own."""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIDES = (1024, 768)
_COARSE = (32, 24)


def pictures(folder: Path, count: int, sides: tuple[int, int] = SIDES) -> list[Path]:
    """So many pictures in a folder, most of them landscape; drawn once."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            _draw(number, sides).save(path, quality=90)
    return paths


def pairs_file(folder: Path, paths: list[Path], each: int) -> Path:
    """A file with so many pairs about each picture: to both models' answers the student's is always another."""
    rows: list[dict[str, Any]] = [
        {
            "pair_id": f"{path.stem}-{number}",
            "image": str(path),
            "question": f"What is the number of square {number}?",
            "answer": f"red {number}",
            "student_text": "green circle",
            "teacher_text": f"red {number}",
        }
        for path in paths
        for number in range(each)
    ]
    file = folder / f"pairs-{len(paths)}-{each}.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def questions_file(folder: Path, paths: list[Path]) -> Path:
    """A labelled question about each picture."""
    rows = [
        {"question_id": path.stem, "image": str(path), "question": "What is the colour?", "answers": ["red"]}
        for path in paths
    ]
    file = folder / f"questions-{len(paths)}.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def _draw(seed: int, sides: tuple[int, int]) -> Image.Image:
    """Soft colours with twenty rectangles: neither as easy to compress as a plain area nor as hard as noise."""
    rng = Random(seed)
    width, height = sides if rng.random() < 0.7 else sides[::-1]
    colours = np.random.default_rng(seed).integers(0, 256, (_COARSE[1], _COARSE[0], 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(20):
        x, y = rng.randrange(width), rng.randrange(height)
        corner = x + rng.randrange(10, 300), y + rng.randrange(10, 200)
        draw.rectangle([(x, y), corner], fill=(rng.randrange(256), rng.randrange(256), rng.randrange(256)))
    return image
