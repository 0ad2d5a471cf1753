"""A filter of pairs: what it has a reason against stays in all files, marked, and is neither asked nor trained on."""

from parityalign.core import Pair, PairFilter


def keep(pair: Pair) -> str | None:
    """None for a pair to keep, else the reason."""
    return f"{pair.answer} is not a hue" if pair.answer in ("black", "white") else None


FILTER = PairFilter(keep)
