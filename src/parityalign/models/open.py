"""Loads the model of a spec, and fingerprints it."""

from parityalign.config import LoadingSettings, backend_of, split_model
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


def fingerprint(spec: str, loading: LoadingSettings | None = None) -> str:
    """A digest of the model and of the loading settings that change its answers; loads nothing."""
    kind, location = split_model(spec)
    return content_id(kind, backend_of(spec).fingerprint(location, loading or LoadingSettings()))
