"""Any vision-language model of transformers, from a Hugging Face folder or hub id, run in this process."""

import json
from pathlib import Path

from parityalign import models
from parityalign.config import Backend, LoadingSettings, fingerprint_of_files
from parityalign.core import Model, content_id

_AS_IT_IS = LoadingSettings()


def load(location: str, loading: LoadingSettings = _AS_IT_IS) -> Model:
    """Loads the model in a folder or on the hub; torch is imported here."""
    model: Model = models.load_hf(location, loading)
    return model


def fingerprint(location: str, loading: LoadingSettings) -> str:
    """A fingerprint of the folder, or of name and commit on the hub, and of settings that change the outputs."""
    found = fingerprint_of_files(location, loading)
    pinned = [loading.pinned] if loading.pinned and not Path(location).is_dir() else []
    numbers = loading.numbers()
    return content_id(found, *pinned, *([json.dumps(numbers, sort_keys=True)] if numbers else []))


def check(location: str, loading: LoadingSettings) -> None:
    """Opens configuration and processor, and checks that the weights are complete."""
    models.check_model(location, loading)


BACKEND = Backend(load=load, trainable=True, hub=True, shows=True, fingerprint=fingerprint, check=check)
