"""Trains a student on pairs; the terms of the loss are files in `losses/`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
