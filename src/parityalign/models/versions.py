"""The supported versions of transformers, since this package uses its internals."""

from importlib.metadata import version

from parityalign.core import UserError

OLDEST, NEWEST = "5.23", "5.24"
"""The first and the last version that passed the tests. Before 5.23 PaliGemma encodes a text differently in training
than in decoding."""


def unknown_transformers(what: str) -> UserError:
    """The error that the installed transformers has other internals.

    Args:
        what: What it does differently, such as `builds LlavaProcessor`.
    """
    major, minor = NEWEST.split(".")
    return UserError(
        f"transformers {version('transformers')} {what} in a way that this version of parityalign does not know.\n"
        f"Install a version from {OLDEST} to {NEWEST}: "
        f"pip install 'transformers>={OLDEST},<{major}.{int(minor) + 1}'"
    )
