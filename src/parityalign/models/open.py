"""Loads the model that a spec names, and tells when it has changed."""

import json
from pathlib import Path

from parityalign.config import LoadingSettings, split_model
from parityalign.core import Model, content_id, file_digest, find_part, folder_digest


def load_model(spec: str, loading: LoadingSettings | None = None) -> Model:
    """Loads the model that `spec` (KIND:LOCATION) names; this is where torch may come in.

    Args:
        spec: Where the model is.
        loading: How it is loaded; None: the kind's own way.

    Raises:
        UserError: There is no such model.
    """
    kind, location = split_model(spec)
    model: Model = find_part("models", kind).load(location, *(() if loading is None else (loading,)))
    return model


def fingerprint(spec: str, loading: LoadingSettings | None = None) -> str:
    """Changes whenever the model does, or how it is loaded as far as its answers hang on that; loads nothing.

    A hash of its file or folder, else of its name and, on the hub, its commit.
    """
    kind, location = split_model(spec)
    how = loading or LoadingSettings()
    parts = [json.dumps(numbers, sort_keys=True)] if kind == "hf" and (numbers := how.numbers()) else []
    path = Path(location)
    if path.is_dir():
        return content_id(kind, folder_digest(path), *parts)
    if path.is_file():
        return content_id(kind, file_digest(path), *parts)
    return content_id(kind, location, *([how.pinned] if kind == "hf" and how.pinned else []), *parts)
