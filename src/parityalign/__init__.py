"""Bring a small vision-language model to parity with a large one on your own images, without labels."""

__version__ = "0.1.0"
