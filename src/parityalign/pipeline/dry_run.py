"""What a run would do, and how many questions that is: everything that asks nobody is done, in a folder of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

from parityalign.config import RunConfig, level_in_words, read_config
from parityalign.core import CONFIG, Artifact, Progress, RunFolder, Says, UserError, read_manifest, read_marker
from parityalign.pipeline.begun import pinned, with_decided
from parityalign.pipeline.preflight import refuse_unusable
from parityalign.pipeline.run import Run
from parityalign.pipeline.run_models import Lacking
from parityalign.stages import Stage
from parityalign.tasks import settled


class Step(NamedTuple):
    """What would be done in one stage."""

    stage: str
    why: str
    """In words: that it is up to date, or why it would be done."""
    questions: int | None = None
    """How many would be asked; None: that hangs on the stages before."""
    model: str = ""
    """Which model would be asked first."""
    at_most: int = 0
    """Where `questions` is None: the most, as far as the stage can tell."""
    waiting: int = 0
    """How many of the questions wait at the model's provider already."""


def dry_steps(config: RunConfig, progress: Progress) -> list[Step]:
    """The stages of a run and what they would do; changes nothing in the run folder.

    Args:
        config: The configuration.
        progress: Called with every step.

    Raises:
        UserError: The run cannot be done.
    """
    refuse_unusable(config)
    with looked_at(config, progress) as run:
        if isinstance(progress, Says) and not run.config.level.undecided:
            progress.say(f"level: {level_in_words(run.config.level)}")
        return _steps(run)


@contextmanager
def looked_at(config: RunConfig, progress: Progress) -> Iterator[Run]:
    """A run that is only looked at: it is not locked, loads no model, and what it makes lies elsewhere.

    Args:
        config: The configuration.
        progress: Called with every step.
    """
    with TemporaryDirectory(prefix="parityalign-") as scratch, _Scratch(config.run, Path(scratch)) as folder:
        run = Run(folder, settled(_as_far_as_decided(config)), progress, dry=True)
        try:
            yield run
        finally:
            run.models.close()


def _as_far_as_decided(config: RunConfig) -> RunConfig:
    """With what is decided when a run begins, unless a model is not there yet."""
    path = config.run / CONFIG
    before = read_config(path) if path.is_file() else None
    try:
        return with_decided(pinned(config, before) if before else config, before)
    except UserError:
        return config


def _steps(run: Run) -> list[Step]:
    steps: list[Step] = []
    settled = True
    for stage in run.stages:
        there = read_manifest(run.folder.path / stage.artifact) is not None
        depends = partial(Step, stage.name, "if what it is made from changes" if there else "not done yet")
        step = _look(run, stage) if settled else depends(at_most=stage.at_most(run))
        settled = settled and step.questions == 0
        steps.append(step)
    return steps


def _look(run: Run, stage: Stage) -> Step:
    found = run.look(stage)
    if found.finished:
        return Step(stage.name, "up to date", 0)
    why = f"again: {found.redone_because}" if found.redone_because else "not done yet"
    if not stage.derives:
        return Step(stage.name, why)
    try:
        stage.work(run, run.take(stage))
    except Lacking as lacking:
        ahead = lacking.ahead
        return Step(stage.name, why, ahead.missing, ahead.model, waiting=ahead.waiting)
    return Step(stage.name, why, 0)


class _Scratch(RunFolder):
    """A run folder as it is, with a place elsewhere for what would be made in it."""

    def __init__(self, path: Path, scratch: Path) -> None:
        super().__init__(path)
        self._scratch = scratch

    def __enter__(self) -> Self:
        """Takes no lock: nothing is changed."""
        self.id = read_marker(self.path)
        return self

    def artifact(
        self,
        name: str,
        *,
        inputs: Mapping[str, str],
        settings: Mapping[str, object],
        version: int = 1,
        parts: Mapping[str, str] | None = None,
    ) -> Artifact:
        """The artifact that is there, or one elsewhere that is ready to be worked on."""
        found = self.peek(name, inputs=inputs, settings=settings, version=version, parts=parts or {})
        if found.finished:
            return found
        place = self._scratch / name
        made = Artifact(place, inputs=inputs, settings=settings, version=version, run=self.path, parts=parts or {})
        made.begin()
        return made

    def event(self, kind: str, **fields: object) -> None:
        """Writes nothing."""
