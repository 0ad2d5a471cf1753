"""What a backend (a way to reach a model) declares about itself, so that no code depends on a backend's name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from parityalign.config.engine import EngineSettings, Hosting
from parityalign.config.loading import LoadingSettings
from parityalign.config.model_specs import split_model
from parityalign.config.serving import ServerSettings
from parityalign.core import Model, Remote, fault_of_function, file_digest, load_part, model_digest

Load = Callable[[str, LoadingSettings], Model]
Connect = Callable[[str, LoadingSettings, ServerSettings], Remote]
_CALLED_WITH: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"load": ("location", "loading"), "connect": ("location", "loading", "server")}
)


def fingerprint_of_files(location: str, _loading: LoadingSettings) -> str:
    """A hash of the file or folder at a location; of the location's text if there is none."""
    path = Path(location)
    if path.is_dir():
        return model_digest(path)
    return file_digest(path) if path.is_file() else location


def _nothing_to_check(_location: str, _loading: LoadingSettings) -> None:
    """The default check: finds nothing wrong before the model is loaded."""


@runtime_checkable
class Serves(Protocol):
    """A program that serves models on this machine, which a run starts and ends."""

    def connect(self, location: str, loading: LoadingSettings, server: ServerSettings, hosting: Hosting) -> Remote:
        """The model that a server will serve; it is started when something is asked."""

    def check(self, location: str, loading: LoadingSettings, engine: EngineSettings) -> None:
        """Raises a UserError for what keeps the program from serving the model, as far as that can be told."""

    def found(self, engine: EngineSettings) -> str:
        """Which program would be started, with its version, in words.

        Raises:
            UserError: There is none.
        """

    def numbers(self, engine: EngineSettings) -> dict[str, object]:
        """The settings that change a model's answers, if they differ from the defaults."""


@dataclass(frozen=True)
class Backend:
    """A way to reach a model: `load`, `connect` or `serve`, and the capabilities of its models.

    A file in `models/backends/` defines one, as `BACKEND`; it is imported to read the capabilities, so it is light.
    """

    load: Load | None = None
    """(location, `loading.ROLE`) -> a model that runs in this process."""
    connect: Connect | None = None
    """(location, `loading.ROLE`, `server`) -> a remote model."""
    serve: Serves | None = None
    """Starts a server for a model, which is then as remote as one that was there before."""
    max_concurrency: int = 16
    """Most concurrent requests to a remote model, unless the run says otherwise."""
    trainable: bool = False
    """Whether levelling can train its models: Hugging Face folders or names on the hub."""
    hub: bool = False
    """Whether its locations are Hugging Face folders or names on the hub, whose configuration can be read and whose
    commit is fixed when a run begins."""
    shows: bool = False
    """Whether its models are `Observer`s: they give log-probabilities and attention, not only text."""
    fingerprint: Callable[[str, LoadingSettings], str] = fingerprint_of_files
    """A fingerprint of the model and of the loading settings that change its answers; loads nothing."""
    check: Callable[[str, LoadingSettings], None] = _nothing_to_check
    """Raises a UserError for problems that would otherwise show only after hours of work; loads no weights."""

    @property
    def remote(self) -> bool:
        """Whether its models are remote: questions to them count against the budget, and no memory is used here."""
        return self.connect is not None or self.serve is not None

    def lacking(self) -> str:
        """What keeps it from being used, in words; empty: nothing."""
        given = [name for name in _CALLED_WITH if getattr(self, name) is not None]
        if len(given) + (self.serve is not None) != 1:
            return "it has to define one of load, connect and serve, and no other"
        if self.serve is not None:
            return "" if isinstance(self.serve, Serves) else f"serve has to be a server program, but is {self.serve!r}"
        (name,) = given
        return fault_of_function(name, getattr(self, name), *_CALLED_WITH[name])


def backend_of(spec: str) -> Backend:
    """The backend of the model that a spec names.

    Raises:
        UserError: There is no backend of that kind, or it is malformed.
    """
    kind, _ = split_model(spec)
    return load_part("backends", kind, Backend)
