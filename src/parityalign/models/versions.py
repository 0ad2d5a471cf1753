"""Which versions of transformers are known, for what this package takes from the inside of it."""

from importlib.metadata import version

from parityalign.core import UserError

OLDEST, NEWEST = "5.23", "5.24"
"""The first and the last version that passed the tests. Before 5.23 PaliGemma reads a text in training in another way
than in decoding."""


def unknown_transformers(what: str) -> UserError:
    """The error that the installed transformers works in another way inside.

    Args:
        what: What it does so, such as `builds LlavaProcessor`.
    """
    major, minor = NEWEST.split(".")
    return UserError(
        f"transformers {version('transformers')} {what} in a way that this version of parityalign does not know.\n"
        f"Install a version from {OLDEST} to {NEWEST}: "
        f"pip install 'transformers>={OLDEST},<{major}.{int(minor) + 1}'"
    )
