"""Loads the model of a spec, and fingerprints it."""

import json

from parityalign.config import EngineSettings, LoadingSettings, ServerSettings, backend_of, split_model
from parityalign.core import Model, UserError, content_id


def load_model(spec: str, loading: LoadingSettings | None = None) -> Model:
    """Loads the model `spec` (KIND:LOCATION) into this process; this may import torch.

    Args:
        spec: Where the model is.
        loading: How it is loaded; None: the defaults.

    Raises:
        UserError: There is no such model, or it is remote.
    """
    load, (_, location) = backend_of(spec).load, split_model(spec)
    if load is None:
        raise UserError(f"the model {spec} is remote and cannot be loaded into this process")
    return load(location, loading or LoadingSettings())


def fingerprint(
    spec: str,
    loading: LoadingSettings | None = None,
    server: ServerSettings | None = None,
    engine: EngineSettings | None = None,
) -> str:
    """A digest of the model and of the settings that change its answers; loads nothing.

    Args:
        spec: Where the model is.
        loading: How it is loaded; None: the defaults.
        server: How it is asked, if it is remote; None: the defaults.
        engine: How its server is started, if the run does that; None: the defaults.
    """
    kind, location = split_model(spec)
    backend, loading = backend_of(spec), loading or LoadingSettings()
    found = content_id(kind, backend.fingerprint(location, loading))
    numbers = asked_with(loading, server or ServerSettings()) if backend.remote else {}
    numbers |= backend.serve.numbers(engine or EngineSettings()) if backend.serve else {}
    return content_id(found, json.dumps(numbers, sort_keys=True)) if numbers else found


def asked_with(loading: LoadingSettings, server: ServerSettings) -> dict[str, object]:
    """The settings that change a remote model's answers, if they differ from the defaults."""
    return {**loading.numbers(), **server.numbers()}
