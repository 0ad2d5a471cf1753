"""Runs in a browser: pairs to review, test questions, progress, and a place to try the models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
