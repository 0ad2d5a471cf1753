"""The configuration of a run: its sections, its YAML file, and the specs of models and data."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
