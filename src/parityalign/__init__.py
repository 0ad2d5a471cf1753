"""Bring a small vision-language model to parity with a large one on your own images, without labels.

import parityalign as pa

run = pa.open_run("RUN.yaml")
run.upto("identify")
run.gaps, run.to_pandas("gaps")
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
