"""Whether the model waits for pictures: what both take together, beside the longer of the two alone.

    python benchmarks/ahead.py [--pictures 240] [--milliseconds 20]

A processor sleeps so long a picture, a model so long a row, in three runs: only the processor, only the model, both.
Perfectly ahead, both take no longer than the longer of the two; one after the other they take twice as long. One thread
prepares pictures. The runs follow each other in one process, so that what else the machine does falls on all of them.

- asked: a model's answers in batches, as identify and evaluate have them.
- scored: the same questions teacher-forced, as discrepancy has them.
- levelled: one epoch of the student, with its looks at the held-out pairs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from parityalign.config.loading import LoadingSettings
from parityalign.config.training import LevelSettings
from parityalign.core.interfaces import Decoding
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.core.records import Pair
from parityalign.engines import Asked, cached
from parityalign.models import encoding
from parityalign.models.backends._hf_model import HFModel, load_hf
from parityalign.training import make_leveller
from parityalign.training.weighted_loss import WeightedLoss

BATCH = 8
_ONE = LoadingSettings(workers=1)
_STUDENT = str(EMBEDDED_MODELS / "student")
_PROMPT = "What is shown?"


class Naps:
    """How long processor and model sleep now."""

    picture = row = 0.0


def main() -> None:
    """Prints a line for each kind of work."""
    asks = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asks.add_argument("--pictures", type=int, default=240)
    asks.add_argument("--milliseconds", type=float, default=20)
    given = asks.parse_args()
    nap = given.milliseconds / 1000
    _sleepy_processors()
    with tempfile.TemporaryDirectory() as folder:
        pictures = _drawn(Path(folder), given.pictures)
        for name, work in {"asked": _asked, "scored": _scored, "levelled": _levelled}.items():
            took = {
                kind: _seconds(work, pictures, Path(folder) / f"{name} {kind}", *naps)
                for kind, naps in {"processor": (nap, 0), "model": (0, nap), "both": (nap, nap)}.items()
            }
            longer = max(took["processor"], took["model"])
            alone = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in took.items())
            print(f"{name:9} {alone}: {took['both'] / longer:.2f} times the longer")


def _seconds(work: Callable[[list[str], Path], None], pictures: list[str], out: Path, *naps: float) -> float:
    Naps.picture, Naps.row = naps
    began = time.monotonic()
    work(pictures, out)
    return time.monotonic() - began


def _sleepy_processors() -> None:
    kind: Any = encoding.Prompter
    encode = kind.encode

    def sleepy(prompter: encoding.Prompter, image: Image.Image, prompt: str) -> encoding.Encoded:
        time.sleep(Naps.picture)
        made: encoding.Encoded = encode(prompter, image, prompt)
        return made

    kind.encode = sleepy


def _drawn(folder: Path, count: int) -> list[str]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (96, 64), (number % 256, number // 256, 90)).save(path)
    return [str(path) for path in paths]


def _questions(pictures: list[str]) -> list[Asked]:
    return [Asked(path, path, _PROMPT, "", path) for path in pictures]


def _quiet(*_: object) -> None:
    """Progress that nobody looks at."""


def _sleepy_model() -> HFModel:
    model: Any = load_hf(_STUDENT, _ONE)
    for owner, name in ((model, "_write"), (model._observing, "observe")):
        work = getattr(owner, name)

        def sleepy(rows: Any, *more: Any, work: Callable[..., Any] = work) -> Any:  # noqa: ANN401
            time.sleep(Naps.row * len(rows))
            return work(rows, *more)

        setattr(owner, name, sleepy)
    return model  # type: ignore[no-any-return]


def _asked(pictures: list[str], _: Path) -> None:
    model = cached(_sleepy_model())
    model.answer(_questions(pictures), decoding=Decoding(1), batch_size=BATCH, on_progress=_quiet)


def _scored(pictures: list[str], _: Path) -> None:
    told = [(question, "red") for question in _questions(pictures)]
    cached(_sleepy_model()).observe(told, batch_size=BATCH, on_progress=_quiet)


class _SleepyLoss(WeightedLoss):
    def __call__(self, model: torch.nn.Module, batch: Mapping[str, Any], done: float = 1.0) -> torch.Tensor:
        time.sleep(Naps.row * len(batch["input_ids"]))
        return super().__call__(model, batch, done)


def _levelled(pictures: list[str], out: Path) -> None:
    pairs = [
        Pair(pair_id=path, image_id=path, image=path, task="toy", question=_PROMPT, answer="red", teacher="nobody")
        for path in pictures
    ]
    make = make_leveller(
        _STUDENT,
        {"toy": "{question}"},
        settings=LevelSettings(batch_size=BATCH, epochs=1, patience=100),
        objective=_SleepyLoss({"answer": (1.0, 1.0)}),
        seed=0,
        progress=_quiet,
        loading=_ONE,
    )
    held_out = len(pairs) // 20
    make(pairs[held_out:], pairs[:held_out], out)


if __name__ == "__main__":
    main()
