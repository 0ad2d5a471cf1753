"""How fast annotate and identify are with the bundled models, beside the way of the method's first release.

    python benchmarks/loop.py [--pictures 500] [--rows 8] [--folder FOLDER]

Both sides ask the same models, loaded each in its own way, with the same number of threads, the same pictures (as many
a task), four draws on each, which are made by chance of their own; and both judge by `rule: paper`.

- ours: the stages as `parityalign run` calls them, student first, teacher where the student failed.
- first release: batches of a fixed number of rows in the order of the files; pictures opened one by one; every row
  with its own picture through the processor and the model; plain `model.generate`; teacher and student about all pairs.

The pictures are worked on in two halves, ours and theirs, then theirs and ours, so that what else the machine does
falls on both; seconds of CPU, in which it hardly counts, are printed beside the wall's. Of the wall time it prints how
much is spent inside the models' forward passes, vision towers included.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from parityalign.config import AnnotateSettings, IdentifySettings
from parityalign.core import RunFolder
from parityalign.core.interfaces import Decoding, Model, Request
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.core.records import ImageRef, Pair
from parityalign.data.images import image_id
from parityalign.demo.generate import POOL_SEEDS, pool_file, seeds
from parityalign.demo.worlds import WORLDS
from parityalign.engines import TwoModels, cached
from parityalign.models.backends._hf_model import HFModel, load_hf
from parityalign.models.encoding import Prompter, read_image
from parityalign.models.loading import open_processor
from parityalign.stages.annotate import annotate_images, written_pairs
from parityalign.stages.identify import GAPS, identify_gaps
from parityalign.tasks import load_task

SEED = 7
DRAWS, PAIR_TOKENS, ANSWER_TOKENS = 4, 32, 8
"""As the demo has them."""
_ANSWERS = ("student.jsonl", "teacher.jsonl")
ALL_ROWS = 10**9
"""Batch size of the stages for the first release's way: it cuts its own batches, so nothing is waited for between."""


class FirstRelease:
    """A model asked as the method's first release asks: `rows` at a time, as they come."""

    def __init__(self, model: HFModel, rows: int) -> None:
        folder = EMBEDDED_MODELS / Path(model.name.partition(":")[2])
        self.name, self.special_tokens = model.name, model.special_tokens
        opened: Any = AutoModelForImageTextToText.from_pretrained
        self.model: Any = opened(folder, dtype=torch.float32).eval()
        self._processor: Any = open_processor(str(folder))
        self._chat = Prompter(self._processor).chat
        self._rows = rows

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order."""
        starts = range(0, len(requests), self._rows)
        return [text for start in starts for text in self._batch(requests[start : start + self._rows], decoding)]

    def _batch(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        images = [read_image(request.image) for request in requests]
        chats = [self._chat(request.prompt) for request in requests]
        inputs = self._processor(images=images, text=chats, padding=True, padding_side="left", return_tensors="pt")
        how: dict[str, Any] = {"do_sample": False}
        if decoding.temperature > 0:
            how = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, max_new_tokens=decoding.max_new_tokens, **how)
        written = tokens[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self._processor.batch_decode(written, skip_special_tokens=True)]


@dataclass
class Forward:
    """Seconds inside forward passes: of each nest of modules only the outermost counts."""

    seconds: float = 0.0
    _depth: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)

    def watch(self, whole: Any) -> None:  # noqa: ANN401 - untyped classes
        """Also counts this model, and the parts of it that are called before its own forward pass."""
        for module in (whole, whole.model.vision_tower, whole.model.multi_modal_projector):
            module.register_forward_pre_hook(self._enter)
            module.register_forward_hook(self._leave)

    def _enter(self, *_: object) -> None:
        if not self._depth:
            self._began = time.perf_counter()
        self._depth += 1

    def _leave(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += time.perf_counter() - self._began


@dataclass
class Side:
    """What one way took and made, over all its halves."""

    seconds: float = 0.0
    cpu: float = 0.0
    forward: float = 0.0
    replies: int = 0
    pairs: list[Pair] = field(default_factory=list)
    gaps: list[Pair] = field(default_factory=list)
    answers: int = 0


def main() -> None:
    """Draws, runs both ways in turns and prints what they took."""
    asked = _arguments()
    teacher, student = (load_hf(str(EMBEDDED_MODELS / name)) for name in ("teacher", "student"))
    plain = [FirstRelease(model, asked.rows) for model in (teacher, student)]
    forward = Forward()
    for model in (*(each._model for each in (teacher, student)), *(each.model for each in plain)):
        forward.watch(model)
    ours, theirs = Side(), Side()
    with tempfile.TemporaryDirectory(prefix="bench-loop-", dir=asked.folder) as folder:
        halves = _halves(list(_draw(Path(folder), asked.pictures)))
        for number, turn in enumerate((ours, theirs, theirs, ours)):
            run, images = Path(folder) / f"run-{number}", halves[number // 2]
            models = (teacher, student) if turn is ours else plain
            _run(turn, run, images, models, forward, whole=turn is theirs)
    _report(ours, theirs, asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times annotate and identify against the first release's way.")
    parser.add_argument("--pictures", type=int, default=500, help="a task")
    parser.add_argument("--rows", type=int, default=8, help="of the first release's batches")
    parser.add_argument("--folder", help="where the pictures are drawn; default: the system's temporary folder")
    return parser.parse_args()


def _draw(folder: Path, count: int) -> Iterator[ImageRef]:
    for task, draw in WORLDS.items():
        (folder / "pool" / task).mkdir(parents=True)
        for seed in seeds(POOL_SEEDS, task, SEED, count):
            path = pool_file(folder, task, seed)
            draw(Random(seed)).image.save(path, quality=90)
            yield ImageRef(image_id=image_id(path.read_bytes()), path=str(path), task=task)


def _halves(images: Sequence[ImageRef]) -> tuple[Sequence[ImageRef], Sequence[ImageRef]]:
    """Every second pair of pictures, so that PNG and JPEG files (which take turns) and tasks are in both."""
    first, second = ([image for place, image in enumerate(images) if place // 2 % 2 == half] for half in (0, 1))
    return first, second


def _run(
    side: Side,
    folder: Path,
    images: Sequence[ImageRef],
    models: Sequence[Model],
    forward: Forward,
    *,
    whole: bool,
) -> None:
    """Annotate and identify on some pictures; `whole`: teacher and student about every pair."""
    tasks = {name: load_task(name, kinds=False) for name in WORLDS}
    size: dict[str, Any] = {"batch_size": ALL_ROWS} if whole else {}
    drawing = AnnotateSettings(pairs_per_image=DRAWS, top_p=1.0, max_new_tokens=PAIR_TOKENS, **size)
    judging = IdentifySettings(
        rule="paper", ask_teacher="all" if whole else "failures", max_new_tokens=ANSWER_TOKENS, **size
    )
    teacher, student = map(cached, models)  # each in a store of its own: nothing is answered yet
    with RunFolder(folder) as run:
        pairs, verdicts = (run.artifact(name, inputs={}, settings={}) for name in ("pairs", "verdicts"))
        began, before, cpu = time.perf_counter(), forward.seconds, time.process_time()
        annotate_images(pairs, images, tasks, teacher, settings=drawing, seed=0, progress=_mute)
        written = written_pairs(pairs, images)
        identify_gaps(verdicts, written, tasks, TwoModels(student, teacher), settings=judging, progress=_mute)
        side.seconds += time.perf_counter() - began
        side.cpu += time.process_time() - cpu
        side.forward += forward.seconds - before
        side.replies += pairs.manifest["counts"]["replies"]
        side.pairs += written
        side.gaps += list(verdicts.stream(GAPS, Pair))
        side.answers += sum(len((folder / "verdicts" / name).read_text().splitlines()) for name in _ANSWERS)


def _mute(step: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _report(ours: Side, theirs: Side, asked: argparse.Namespace) -> None:
    threads = torch.get_num_threads()
    print(f"{len(WORLDS) * asked.pictures:,} pictures, {threads} threads; first release: batches of {asked.rows} rows")
    for name, side in (("ours", ours), ("first release", theirs)):
        made = f"{side.replies:,} replies, {len(side.pairs):,} pairs, {side.answers:,} answers, {len(side.gaps):,} gaps"
        forward = f"{side.forward / side.seconds:6.1%} forward"
        print(f"{name:14}{side.seconds:8.1f} s, {forward}, {side.cpu:.1f} s of CPU; {made}")
    shared = {pair.pair_id for pair in ours.gaps} & {pair.pair_id for pair in theirs.gaps}
    same = {pair.pair_id for pair in ours.pairs} & {pair.pair_id for pair in theirs.pairs}
    print(f"in both: {len(same):,} pairs, {len(shared):,} gaps; ", end="")
    print(f"ratio {theirs.seconds / ours.seconds:.2f}, of CPU {theirs.cpu / ours.cpu:.2f}")


if __name__ == "__main__":
    main()
