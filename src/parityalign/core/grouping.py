"""Items in groups of a size."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def groups_of(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in their order, `size` at a time; the last group may be smaller."""
    waiting = iter(items)
    while group := list(islice(waiting, size)):
        yield group
