"""Whether any picture that the embedded models learnt from is in the demo: `python -m demo_models.apart`.

Ranges of seeds keep them apart, but two seeds can draw the same picture. All are drawn once more and compared by the
content of their pixels, before any file format changes it.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from random import Random
from typing import NamedTuple

from demo_models.recipe import (
    ASKING,
    PROCESSES,
    TOWER,
    WHOLE,
    first_asking_seed,
    first_explained_seed,
    first_whole_seed,
)
from demo_models.schooling import TOWER_MIX, TRAINING_SEEDS, WHOLE_MIX, world_of
from parityalign.core.errors import WorkFailed
from parityalign.demo.generate import POOL_PICTURES, POOL_SEEDS, TEST_PICTURES, TEST_SEEDS, pixel_hash, seeds
from parityalign.demo.worlds import WORLDS

logger = logging.getLogger(__name__)
_BLOCK = 2000


class Block(NamedTuple):
    """Training pictures that are drawn in one go."""

    seeds: range
    mix: Mapping[str, float]


def demo_hashes(seed: int) -> dict[str, str]:
    """{hash of the pixels: where it is} of every pool and test picture of a demo seed."""
    parts = (("pool", POOL_SEEDS, POOL_PICTURES), ("test", TEST_SEEDS, TEST_PICTURES))
    return {
        pixel_hash(WORLDS[task](Random(number)).image): f"{part} of {task}, {number}"
        for part, numbers, count in parts
        for task in WORLDS
        for number in seeds(numbers, task, seed, count)
    }


def training_blocks() -> Iterator[Block]:
    """All that the recipe draws for the teacher or the student, each picture once."""
    pictures = max(schedule.steps * schedule.batch_size for schedule in TOWER.values()) * PROCESSES
    yield from _blocks(range(TRAINING_SEEDS.start, TRAINING_SEEDS.start + pictures), TOWER_MIX)
    ends = [first_explained_seed(name) for name in WHOLE]
    ends += [first_asking_seed(name) + last.steps * last.batch_size * PROCESSES for name, last in ASKING.items()]
    yield from _blocks(range(min(map(first_whole_seed, WHOLE)), max(ends)), WHOLE_MIX)


def _blocks(numbers: range, mix: Mapping[str, float]) -> Iterator[Block]:
    for start in range(numbers.start, numbers.stop, _BLOCK):
        yield Block(range(start, min(start + _BLOCK, numbers.stop)), mix)


def met_again(block: Block, demo: Mapping[str, str]) -> list[str]:
    """The demo's pictures that a block of training pictures repeats, each with the training seed."""
    found = []
    for number in block.seeds:
        rng = Random(number)
        picture = WORLDS[world_of(rng, block.mix)](rng)
        place = demo.get(pixel_hash(picture.image))
        if place:
            found.append(f"{place}: drawn for training from the seed {number}")
    return found


def main() -> None:
    """Logs the counts.

    Raises:
        WorkFailed: A picture of the demo was drawn for training too.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the demo's seed")
    demo = demo_hashes(parser.parse_args().seed)
    blocks = list(training_blocks())
    with ProcessPoolExecutor() as pool:
        found = [line for lines in pool.map(partial(met_again, demo=demo), blocks) for line in lines]
    drawn = sum(len(block.seeds) for block in blocks)
    if found:
        raise WorkFailed("the models learnt from pictures of the demo:\n" + "\n".join(found))
    logger.info("%d training pictures compared with %d of the demo: none is met again", drawn, len(demo))


if __name__ == "__main__":
    main()
