"""Two replicas on a Ray cluster of this machine, beside one: answers a second.

    python benchmarks/on_ray.py [--pictures 400] [--trials 5]

The bundled student answers a question about each of the drawn pictures; each replica has one core and one thread, and
models are in memory before the clock starts. Trials with one and with two replicas follow each other in turns, so that
what else the machine does falls on both; the answers are compared.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw

from parityalign.config import LoadingSettings, RaySettings, RunConfig
from parityalign.core import Decoding, Model, RunFolder
from parityalign.engines import Asked, Replicas, request_of
from parityalign.pipeline.run_models import RunModels

_PROMPT = "What colour is the square?"
_BATCH = 16
_PATIENCE = 120
"""Seconds in which all replicas have to be ready."""


def main() -> None:
    """Prints the seconds of each trial and the median of the ratios of each two that followed each other."""
    asks = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asks.add_argument("--pictures", type=int, default=400)
    asks.add_argument("--trials", type=int, default=5)
    given = asks.parse_args()
    took: dict[int, list[float]] = {1: [], 2: []}
    said: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = _drawn(Path(folder), given.pictures)
        for trial in range(given.trials):
            for replicas in (1, 2) if trial % 2 == 0 else (2, 1):
                seconds, answers = _seconds(Path(folder) / f"{trial}-{replicas}", pictures, replicas)
                took[replicas].append(seconds)
                said.append(answers)
                print(f"trial {trial + 1}, {replicas} of them: {seconds:.1f} s", flush=True)
    if any(each != said[0] for each in said):
        raise ValueError("answers differ")
    pairs = [one / two for one, two in zip(took[1], took[2], strict=True)]
    print(f"{given.pictures} questions; two replicas are {statistics.median(pairs):.2f} times as fast as one")
    print(f"(median of {len(pairs)} pairs of trials, {min(pairs):.2f} to {max(pairs):.2f}); all answers are equal")


def _seconds(run: Path, pictures: list[str], replicas: int) -> tuple[float, list[str]]:
    """How long all answers take once the model is loaded, and the answers."""
    config = RunConfig(
        run=run,
        teacher="embedded:teacher",
        student="embedded:student",
        tasks={"vqa": {"images": "nowhere"}},  # type: ignore[dict-item]
        loading={"student": LoadingSettings(workers=0, replicas=replicas)},  # type: ignore[arg-type]
        ray=RaySettings(),
    )
    asked = [Asked(str(number), picture, _PROMPT, "") for number, picture in enumerate(pictures)]
    with RunFolder(run) as folder:
        models = RunModels(config, folder, lambda _: None)
        try:
            _warm(models.student.loaded(replicas), asked[: 4 * _BATCH], replicas)
            began = time.monotonic()
            answers = models.student.answer(asked, decoding=Decoding(8), batch_size=_BATCH, on_progress=lambda *_: None)
            return time.monotonic() - began, [each.text for each in answers.values()]
        finally:
            models.close()


def _warm(model: Model, asked: list[Asked], replicas: int) -> None:
    """Asks until each replica has answered: the first that is ready does not tell that the other one is."""
    if not isinstance(model, Replicas):
        raise TypeError(f"{model!r} has no replicas")
    requests = [request_of(each) for each in asked]
    end = time.monotonic() + _PATIENCE
    while model.ready < replicas:
        if time.monotonic() > end:
            raise TimeoutError(f"{model.ready} of {replicas} replicas are ready after {_PATIENCE} s")
        model.generate(requests, Decoding(8))
    model.generate(requests, Decoding(8))  # a batch for each that is ready


def _drawn(folder: Path, count: int) -> list[str]:
    """Pictures with a square in its own colour and place."""
    paths = []
    for number in range(count):
        image = Image.new("RGB", (160, 120), "white")
        corner = (number * 37 % 100, number * 23 % 70)
        colour = (number * 67 % 256, number * 131 % 256, number * 29 % 256)
        ImageDraw.Draw(image).rectangle((*corner, corner[0] + 40, corner[1] + 40), fill=colour)
        paths.append(str(folder / f"{number}.png"))
        image.save(paths[-1])
    return paths


if __name__ == "__main__":
    main()
