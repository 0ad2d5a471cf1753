"""What a backend, a way to reach a model, says of itself; nobody asks for one by its name."""

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
    """A hash of the file or folder at a location, else of its name."""
    path = Path(location)
    if path.is_dir():
        return folder_digest(path)
    return file_digest(path) if path.is_file() else location


def _nothing_to_check(_location: str, _loading: LoadingSettings) -> None:
    """Nothing is found wrong before the model is loaded."""


@dataclass(frozen=True)
class Backend:
    """A way to reach a model: `load` or `connect`, and what can be done with what comes of it.

    A file in `models/backends/` defines one, as `BACKEND`; it is imported to ask what the backend can, so it is light.
    """

    load: Load | None = None
    """(location, `loading.ROLE`) -> a model that runs in this process."""
    connect: Connect | None = None
    """(location, `loading.ROLE`, `server`) -> a model that answers from elsewhere."""
    trainable: bool = False
    """Whether its models are Hugging Face folders (or lie on the hub) that levelling can train."""
    hub: bool = False
    """Whether its locations are Hugging Face folders or names on the hub, whose configuration can be read and whose
    commit a run keeps to."""
    shows: bool = False
    """Whether its models are an `Observer`, and not text alone."""
    fingerprint: Callable[[str, LoadingSettings], str] = fingerprint_of_files
    """Changes whenever the model does, or how it is loaded as far as its answers hang on that; loads nothing."""
    check: Callable[[str, LoadingSettings], None] = _nothing_to_check
    """Raises a UserError for what would be found wrong only after hours of other work; loads no weights."""

    @property
    def remote(self) -> bool:
        """Whether its answers come from elsewhere: they are kept in the ledger, count against the budget, and take no
        memory here."""
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
        UserError: There is none of that kind, or it has not the form of one.
    """
    kind, _ = split_model(spec)
    return load_part("backends", kind, Backend)
