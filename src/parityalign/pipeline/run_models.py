"""The models of a run: loaded on demand, and described in the manifest of the stage that uses them."""

import gc
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

from parityalign import engines
from parityalign.config import LoadingSettings, RunConfig, backend_of
from parityalign.core import Artifact, Model
from parityalign.models import fingerprint, load_model

_THEN = ", then "


@runtime_checkable
class Described(Protocol):
    """A model that describes how it runs in this process."""

    facts: Mapping[str, str]
    """What its outputs depend on besides its files, such as the precision; for manifests."""


class RunModels:
    """Loads the models of one run."""

    def __init__(self, config: RunConfig, ledger: Path) -> None:
        """Loads nothing yet.

        Args:
            config: The configuration.
            ledger: The folder of the ledger of remote models.
        """
        self._config = config
        self._ledger = ledger
        self._stage = ""
        self._artifact: Artifact | None = None

    @cached_property
    def teacher_fingerprint(self) -> str:
        """The teacher's fingerprint; computed once, since a model may be large."""
        return fingerprint(self._config.teacher, self._config.loading.teacher)

    @cached_property
    def student_fingerprint(self) -> str:
        """The original student's fingerprint."""
        return fingerprint(self._config.student, self._config.loading.student)

    def begin(self, stage: str, artifact: Artifact) -> None:
        """From now on models are loaded for this stage, and its artifact's manifest records how they ran."""
        self._stage, self._artifact = stage, artifact
        artifact.also = lambda: self._asked_elsewhere(stage)

    def load(self, spec: str, loading: LoadingSettings, role: str) -> Model:
        """Loads a model after freeing the previous one, so that two need not fit into memory.

        Args:
            spec: The model.
            loading: How it is loaded.
            role: Its name in the stage's manifest: `teacher`, `before` or `after`.
        """
        if backend_of(spec).remote:
            return self._remotes.model(spec, loading, self._stage)
        gc.collect()
        model = load_model(spec, loading)
        if isinstance(model, Described):
            self._remember(role, {**({"commit": loading.commit} if loading.commit else {}), **model.facts})
        return model

    def _remember(self, role: str, facts: Mapping[str, str]) -> None:
        if self._artifact is None or self._artifact.finished:
            return
        known = self._artifact.remembered.get("models", {})
        self._artifact.remember(models={**known, role: _in_turn(known.get(role, {}), facts)})

    def _asked_elsewhere(self, stage: str) -> Mapping[str, object]:
        remote = any(backend_of(spec).remote for spec in (self._config.teacher, self._config.student))
        return self._remotes.facts(stage) if remote else {}

    @cached_property
    def _remotes(self) -> "engines.Remotes":
        """The remote models of the run, with the ledger."""
        return engines.Remotes(self._config.server, self._ledger)


def _in_turn(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Merges two descriptions; where they differ, as after a resume on another machine, all values in order."""
    turns = {key: [*before[key].split(_THEN), now[key]] for key in before.keys() & now.keys()}
    return {**before, **now, **{key: _THEN.join(dict.fromkeys(values)) for key, values in turns.items()}}
