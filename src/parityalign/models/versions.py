"""The supported versions of transformers, since this package uses its internals."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TypeVar

from parityalign.core import UserError

T = TypeVar("T")

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


def known(what: str, table: Mapping[str, T], name: str) -> T:
    """What one of transformers' own tables has under a name.

    Raises:
        UserError: It has nothing there.
    """
    if name not in table:
        raise unknown_transformers(f"{what} ({name!r})")
    return table[name]
