"""The demo: drawn pictures with known facts, and controls that need them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
