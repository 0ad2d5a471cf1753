"""Loads the model that a spec names, and tells when it has changed."""

from parityalign.config import LoadingSettings, backend_of, split_model
from parityalign.core import Model, UserError, content_id


def load_model(spec: str, loading: LoadingSettings | None = None) -> Model:
    """Loads the model that `spec` (KIND:LOCATION) names into this process; this is where torch may come in.

    Args:
        spec: Where the model is.
        loading: How it is loaded; None: the kind's own way.

    Raises:
        UserError: There is no such model, or it answers from elsewhere.
    """
    load, (_, location) = backend_of(spec).load, split_model(spec)
    if load is None:
        raise UserError(f"the model {spec} answers from elsewhere and cannot be loaded into this process")
    return load(location, loading or LoadingSettings())


def fingerprint(spec: str, loading: LoadingSettings | None = None) -> str:
    """Changes whenever the model does, or how it is loaded as far as its answers hang on that; loads nothing."""
    kind, location = split_model(spec)
    return content_id(kind, backend_of(spec).fingerprint(location, loading or LoadingSettings()))
