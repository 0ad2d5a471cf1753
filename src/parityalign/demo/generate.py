"""Writes the demo's data: for each world a pool of unlabelled pictures and a test split in its benchmark's format.

    FOLDER/pool/TASK/*.png, *.jpg      only pictures, no questions or labels
    FOLDER/test/TASK/...               the official files of the benchmark that the world stands for (`splits.py`)

Pool, test and training pictures come from three ranges of seeds; pool and test are compared by content as well.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from random import Random
from shutil import rmtree

from PIL import Image

from parityalign.core import DRAWN, HALF_WRITTEN, Progress, UserError, WorkFailed, write_whole
from parityalign.demo.canvas import Drawing, Fact, one_of_each_kind
from parityalign.demo.charts import implied
from parityalign.demo.splits import WRITERS, AskedPicture
from parityalign.demo.worlds import WORLDS

POOL_SEEDS = range(1_000_000_000, 2_000_000_000)
TEST_SEEDS = range(2_000_000_000, 3_000_000_000)
POOL_PICTURES = 1500
"""Pictures in the pool of each task, if nobody says how many."""
TEST_PICTURES = 300
"""Pictures in the test split of each task, with two questions each; a smaller demo keeps the proportion."""
_BLOCK = 1_000_000
"""Seeds reserved for one task of one demo seed: the most pictures that the command line draws for a task."""
_PARTS = ("pool", "test")
_DONE = DRAWN
"""File that names what was drawn, or `_BEGUN` until all is."""
_BEGUN = "{}"


def write_demo_data(folder: Path, seed: int, progress: Progress, *, pictures: int | None = None) -> None:
    """Draws pools and test splits into a folder; does nothing if the same are complete there.

    Args:
        folder: Gets the folders `pool` and `test`.
        seed: Of the demo; other seeds draw other pictures.
        progress: Told of each picture.
        pictures: How many in the pool of each task; a fifth as many, and at least one, in its test split.
            None: `POOL_PICTURES`.

    Raises:
        UserError: The folder holds files that the demo did not draw.
        WorkFailed: A pool picture and a test picture have the same pixels.
    """
    pictures = pictures or POOL_PICTURES
    for_test = max(1, pictures * TEST_PICTURES // POOL_PICTURES)
    wanted = {"seed": seed, "pool": pictures, "test": for_test, "version": 1}
    marker, written = folder / _DONE, json.dumps(wanted)
    if marker.exists() and marker.read_text() == written:
        return
    _refuse_other_files(folder)
    _refuse_other_size(marker, wanted)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(marker, _BEGUN)
    for part in _PARTS:
        rmtree(folder / part, ignore_errors=True)
    total = len(WORLDS) * (pictures + for_test)
    seen: dict[str, set[str]] = {"pool": set(), "test": set()}
    done = 0
    for task in WORLDS:
        for part, drawings in (
            ("pool", write_pool(folder, task, seed, pictures)),
            ("test", write_test(folder, task, seed, for_test)),
        ):
            for picture in drawings:
                seen[part].add(pixel_hash(picture.image))
                done += 1
                progress("draw the demo's pictures", done, total)
    if both := seen["pool"] & seen["test"]:
        raise WorkFailed(f"{len(both)} pictures are both in the pool and in a test split of {folder}; use another seed")
    write_whole(marker, written)


def is_drawn(folder: Path) -> bool:
    """Whether a folder holds pictures of the demo, complete or not."""
    return (folder / _DONE).is_file()


def _refuse_other_size(marker: Path, wanted: Mapping[str, int]) -> None:
    """Refuses to draw over a whole demo: its run would be done again."""
    drawn = json.loads(marker.read_text()) if marker.exists() else {}
    if drawn and drawn.get("version") == wanted["version"]:
        raise UserError(
            f"{marker.parent} holds the pictures of a demo of {drawn.get('pool'):,} pictures a task (seed "
            f"{drawn.get('seed')}), and this one has {wanted['pool']:,} (seed {wanted['seed']}).\n"
            "Name another run folder: --run runs/NAME"
        )


def _refuse_other_files(folder: Path) -> None:
    # A kill may come before the first marker is whole.
    others = [path for path in folder.glob("*") if path.name != _DONE + HALF_WRITTEN]
    if others and not is_drawn(folder):
        raise UserError(
            f"{folder} holds {others[0].name}, which the demo has not drawn. Name another folder: "
            "parityalign demo --run RUN"
        )


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of a picture's pixels, independent of the file."""
    return sha256(image.convert("RGB").tobytes()).hexdigest()


def seeds(part: range, task: str, seed: int, count: int) -> range:
    """The picture seeds of a task's pool or test split."""
    first = part.start + (seed * len(WORLDS) + tuple(WORLDS).index(task)) * _BLOCK
    return range(first, first + count)


def pool_file(folder: Path, task: str, picture_seed: int) -> Path:
    """The path of a pool picture; half are PNG and half JPEG files."""
    suffix = "png" if picture_seed % 2 == 0 else "jpg"
    return folder / "pool" / task / f"{picture_seed}.{suffix}"


def truth(task: str, image: Path) -> tuple[Fact, ...]:
    """The facts of a pool picture, redrawn from the seed in its name; for controls only."""
    facts = WORLDS[task](Random(int(image.stem))).facts
    if task != "chartqa":
        return facts
    drawn = {fact.question for fact in facts}
    return (*facts, *(fact for fact in implied(facts) if fact.question not in drawn))


def write_pool(folder: Path, task: str, seed: int, pictures: int) -> Iterator[Drawing]:
    """Draws unlabelled pictures, picture by picture.

    Args:
        folder: Gets the folder `pool/TASK`.
        task: The world.
        seed: Of the demo whose pool pictures these are; other seeds draw others.
        pictures: How many.
    """
    (folder / "pool" / task).mkdir(parents=True)
    for picture_seed in seeds(POOL_SEEDS, task, seed, pictures):
        picture = WORLDS[task](Random(picture_seed))
        picture.image.save(pool_file(folder, task, picture_seed), quality=90)
        yield picture


def write_test(folder: Path, task: str, seed: int, pictures: int) -> Iterator[Drawing]:
    """Draws a labelled test split as the task's benchmark would release it, picture by picture.

    Args:
        folder: Gets the folder `test/TASK`, after the last picture.
        task: The world.
        seed: The demo's seed.
        pictures: How many, with two questions each.
    """
    asked: list[AskedPicture] = []
    for picture_seed in seeds(TEST_SEEDS, task, seed, pictures):
        rng = Random(picture_seed)
        picture = WORLDS[task](rng)
        asked.append(AskedPicture(picture.image, tuple(one_of_each_kind(picture.facts, rng)[:2])))
        yield picture
    WRITERS[task](folder / "test" / task, asked, Random(seed))
