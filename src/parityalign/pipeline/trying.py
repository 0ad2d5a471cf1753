"""A run's models for questions of one's own: what they say is kept nowhere, and the run folder is only read."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import NamedTuple

from parityalign.config import RunConfig
from parityalign.core import (
    ANSWERS,
    STUDENT_FOLDER,
    Answer,
    Artifact,
    Decoding,
    RunFolder,
    UserError,
    did_you_mean,
    read_manifest,
)
from parityalign.engines import Asked, CachedModel
from parityalign.pipeline.run_models import RunModels
from parityalign.stages import LEVELLED
from parityalign.tasks import task_of

BEFORE, AFTER, TEACHER = "before", "after", "teacher"
"""The student before and after levelling, and the teacher."""
# What loading and asking a model raise besides: no such file, not enough memory, a package that is missing.
_FAULTS = (OSError, RuntimeError, ImportError, MemoryError, ValueError)
_PLAN = ("inputs", "settings", "version")
"""Of a manifest: what the artifact was made from."""


class Said(NamedTuple):
    """What a model answered to one's own question."""

    text: str
    problem: str
    """Why there is no answer, in words; empty: there is one."""
    seconds: float
    """Loading included, if it was not in memory."""


class TriedModels:
    """The models of a run, one in memory at a time; they may be asked in several threads, and answer one by one."""

    def __init__(self, config: RunConfig) -> None:
        """Loads nothing yet."""
        self._config = config
        self._lock = Lock()
        self._scratch = TemporaryDirectory(prefix="parityalign-try-")
        scratch = RunFolder(Path(self._scratch.name))  # logs of servers that are started lie there too
        apart = config.model_copy(update={"answers": scratch.path / ANSWERS})  # what is asked again is known
        self._models = RunModels(apart, scratch, lambda _: None)
        self._students: dict[str, CachedModel] = {}

    def answer(self, who: str, image: Path, question: str, task: str) -> Answer:
        """What a model says to a question about a picture, in the words of a task, as in evaluate.

        Args:
            who: `BEFORE`, `AFTER` or `TEACHER`.
            image: A file with a picture that can be read.
            question: Of a person.
            task: Whose prompt is used.

        Raises:
            UserError: There is no such task or student, or the model cannot be loaded or asked; the message says why.
        """
        if task not in self._config.tasks:
            raise UserError(f"the run has no task {task!r}. {did_you_mean(task, list(self._config.tasks))}")
        prompt = task_of(task, self._config.tasks[task]).answer_prompt.format(question=question)
        asked = Asked("try", str(image), prompt, untrusted=question)
        decoding = Decoding(self._config.evaluate.max_new_tokens)
        with self._lock:
            model = self._model(who)
            return model.answer([asked], decoding=decoding, batch_size=1, on_progress=lambda *_: None)["try"]

    @property
    def is_levelled(self) -> bool:
        """Whether there is a student after levelling."""
        return (read_manifest(self._config.run / STUDENT_FOLDER) or {}).get("outcome") == LEVELLED

    def close(self) -> None:
        """Lets go of the models."""
        with self._lock:
            self._models.close()
            self._scratch.cleanup()

    def _model(self, who: str) -> CachedModel:
        if who == AFTER:
            return self._levelled()
        return self._models.teacher if who == TEACHER else self._models.student

    def _levelled(self) -> CachedModel:
        """The levelled student, compared with its digests when it is first used."""
        folder = self._config.run / STUDENT_FOLDER
        manifest = read_manifest(folder)
        if manifest is None or manifest.get("outcome") != LEVELLED:
            why = "nothing was levelled yet" if manifest is None else "none was taken, so it is the one before"
            raise UserError(f"there is no student after levelling: {why}")
        student = Artifact(folder, run=self._config.run, **{key: manifest[key] for key in _PLAN})
        if student.digest not in self._students:
            student.check()
            self._students[student.digest] = self._models.trained(student)
        return self._students[student.digest]


def try_model(models: Callable[[], TriedModels], who: str, picture: Path, question: str, task: str) -> Said:
    """What a model says, or why it says nothing.

    Args:
        models: The models of the run; may raise what `TriedModels` raises.
        who: As of `TriedModels.answer`, like the rest.
        picture: A file with a picture that can be read.
        question: Of a person.
        task: Whose prompt is used.
    """
    began, text, problem = time.monotonic(), "", ""
    try:
        answer = models().answer(who, picture, question, task)
        text = answer.text
        problem = f"it was not asked: {answer.not_asked}" if answer.not_asked else ""
    except UserError as refused:
        problem = str(refused)
    except _FAULTS as fault:
        problem = f"the model could not be loaded or asked: {type(fault).__name__}: {fault}"
    return Said(text, problem, time.monotonic() - began)
