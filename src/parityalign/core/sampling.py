"""Draws that depend on identities and a salt, never on positions in a list."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from parityalign.core.records import content_id

T = TypeVar("T")


def sample(items: Sequence[T], count: int, salt: str, identity: Callable[[T], str]) -> list[T]:
    """Up to `count` of the items, in their order: those whose salted identity hashes lowest.

    So adding or removing an item changes the selection of at most one other.
    """
    lowest = sorted(items, key=lambda item: content_id(salt, identity(item)))[: max(0, count)]
    taken = {identity(item) for item in lowest}
    return [item for item in items if identity(item) in taken]
