"""What a backend (a way to reach a model) declares about itself, so that no code depends on a backend's name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from parityalign.config.loading import LoadingSettings
from parityalign.config.model_specs import split_model
from parityalign.config.serving import ServerSettings
from parityalign.core import Model, Remote, fault_of_function, file_digest, folder_digest, load_part

Load = Callable[[str, LoadingSettings], Model]
Connect = Callable[[str, LoadingSettings, ServerSettings], Remote]
_CALLED_WITH: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"load": ("location", "loading"), "connect": ("location", "loading", "server")}
)


def fingerprint_of_files(location: str, _loading: LoadingSettings) -> str:
    """A hash of the file or folder at a location; of the location's text if there is none."""
    path = Path(location)
    if path.is_dir():
        return folder_digest(path)
    return file_digest(path) if path.is_file() else location


def _nothing_to_check(_location: str, _loading: LoadingSettings) -> None:
    """The default check: finds nothing wrong before the model is loaded."""


@dataclass(frozen=True)
class Backend:
    """A way to reach a model: `load` or `connect`, and the capabilities of its models.

    A file in `models/backends/` defines one, as `BACKEND`; it is imported to read the capabilities, so it is light.
    """

    load: Load | None = None
    """(location, `loading.ROLE`) -> a model that runs in this process."""
    connect: Connect | None = None
    """(location, `loading.ROLE`, `server`) -> a remote model."""
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
        return self.connect is not None

    def lacking(self) -> str:
        """What keeps it from being used, in words; empty: nothing."""
        given = [name for name in _CALLED_WITH if getattr(self, name) is not None]
        if len(given) != 1:
            return "it has to define one of load and connect, and not both"
        (name,) = given
        return fault_of_function(name, getattr(self, name), *_CALLED_WITH[name])


def backend_of(spec: str) -> Backend:
    """The backend of the model that a spec names.

    Raises:
        UserError: There is no backend of that kind, or it is malformed.
    """
    kind, _ = split_model(spec)
    return load_part("backends", kind, Backend)
