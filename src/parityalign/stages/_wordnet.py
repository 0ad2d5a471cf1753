"""What WordNet says of two names of things: the same thing, perhaps the same, or nothing.

Read is an excerpt of Princeton WordNet 3.1 (`words/nouns.tsv`, made by `tools/wordnet_excerpt.py`). Its synonyms hold
for a sense of a word, not always for the one that is meant: only names that both mean a thing in the first place are
the same, others may be.
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_FARTHEST = 5
"""Steps from a thing to its kind: a golden retriever, a sporting dog, a hunting dog, a dog."""


class _Nouns(NamedTuple):
    senses: dict[str, tuple[tuple[int, int], ...]]
    """By name: (which of its senses it is, line)."""
    kinds: tuple[int, ...]
    """By line: the line of its kind; 0: none."""


def are_same(one: str, other: str) -> bool:
    """Whether both names mean the same thing in their first senses, as `couch` and `sofa`."""
    senses = _nouns().senses
    return bool(
        {line for rank, line in senses.get(one, ()) if not rank}
        & {line for rank, line in senses.get(other, ()) if not rank}
    )


def may_be_same(one: str, other: str, *, whole: bool = False) -> bool:
    """Whether both may mean the same thing, or one is a kind of the other, as `dog` and `golden retriever`.

    Args:
        one: A name in the singular.
        other: Another.
        whole: Whether both have to be known as they are, and not by their last words.
    """
    known = _nouns().senses
    senses = [{line for _, line in (known.get(name, ()) if whole else _senses(name))} for name in (one, other)]
    above = [{kind for line in each for kind in _above(line)} for each in senses]
    return bool(senses[0] & senses[1] or senses[0] & above[1] or above[0] & senses[1])


def _senses(name: str) -> tuple[tuple[int, int], ...]:
    """Of a name of several words that is not known, the senses of its last word."""
    senses = _nouns().senses
    return senses.get(name) or senses.get(name.rpartition(" ")[2], ())


def _above(line: int) -> Iterator[int]:
    kinds = _nouns().kinds
    for _ in range(_FARTHEST):
        line = kinds[line]
        if not line:
            return
        yield line


@cache
def _nouns() -> _Nouns:
    senses: dict[str, list[tuple[int, int]]] = {}
    kinds = [0]
    text = (files(__package__) / "words" / "nouns.tsv").read_text(encoding="utf-8")
    for line, row in enumerate(text.splitlines(), start=1):
        kind, names = row.split("\t")
        kinds.append(int(kind))
        for name in names.split(","):
            senses.setdefault(name.rstrip("'"), []).append((name.count("'"), line))
    return _Nouns({name: tuple(found) for name, found in senses.items()}, tuple(kinds))
