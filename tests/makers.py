"""What several tests draw and write: pictures, run folders, tasks with a plain metric."""

from pathlib import Path
from random import Random

from PIL import Image

from parityalign.core import Artifact, RunFolder
from parityalign.core.interfaces import Metric, Task
from parityalign.core.records import Score
from parityalign.engines import AnswerStore, CachedModel, cached


def mute(step: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def draw(path: Path, colour: str | tuple[int, int, int] = "red", size: tuple[int, int] = (16, 16), **options) -> Path:
    """Saves a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def speckle(path: Path, seed: int, size: tuple[int, int] = (16, 16)) -> Path:
    """Saves a picture of random spots, which looks like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("RGB", size, Random(seed).randbytes(3 * size[0] * size[1])).save(path)
    return path


def artifact(folder: Path, name: str = "made", **settings) -> Artifact:
    """An artifact of a run folder, ready to be worked on or, if finished, to be read."""
    with RunFolder(folder) as run:
        return run.artifact(name, inputs={}, settings=settings)


def kept(folder: Path, model) -> CachedModel:
    """A model whose answers are kept in the run folder."""
    return cached(model, AnswerStore(folder / "answers.sqlite"))


def exact(prediction: str, references) -> Score:
    """Right if it is one of the references."""
    return Score(float(prediction in references), prediction, "exact")


EXACT = Metric("exact", exact)


def task(name: str = "toy", metric=EXACT) -> Task:
    """A task whose prompts name it."""
    return Task(
        name=name,
        metric=metric,
        annotate_prompt=f"write for {name}",
        answer_prompt="{question}\nanswer",
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
