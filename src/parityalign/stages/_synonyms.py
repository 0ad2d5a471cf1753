"""Words and names that mean the same, may be the same, or look alike and are not: the table `words/by_hand.txt`."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files

from parityalign.stages._near_words import singular

Words = tuple[str, ...]


def with_one_name(found: Sequence[str]) -> Words:
    """Words in the singular, and of several that mean the same always the same one."""
    same = _same("same")
    named: list[str] = []
    place = 0
    while place < len(found):
        for length in range(min(_longest(), len(found) - place), 0, -1):
            if name := same.get(tuple(found[place : place + length])):
                named += name
                break
        else:
            length = 1
            named.append(found[place])
        place += length
    return _same("same as a whole").get(tuple(named), tuple(named))


def stands_for_another(name: Words) -> bool:
    """Whether a name gives way to another that means the same."""
    return name in _same("same")


def is_region(name: Words) -> bool:
    """Whether a name is that of a country or state that is often said behind a city's."""
    return name in _names("regions")


def may_be_same(one: Words, other: Words) -> bool:
    """Whether one answer names the kind that the other is of, as `fish` and `tuna`."""
    return _is_kind_of(one, other) or _is_kind_of(other, one)


def is_another(one: Words, other: Words) -> bool:
    """Whether one name holds or begins the other and yet means something else, as `tennis` and `table tennis`."""
    short, long = sorted((one, other), key=len)
    if len(short) == len(long) == 1:
        beginnings = (*short, *long), (*long, *short)
        return not _names("one begins the other").isdisjoint(beginnings)
    behind, before = long[-len(short) :] == short, long[: len(short)] == short
    more_than_last, more_than_first = _names("more than their last word"), _names("more than their first word")
    return len(short) < len(long) and (behind and long in more_than_last or before and long in more_than_first)


def _is_kind_of(kind: Words, name: Words) -> bool:
    return any(name[-len(each) :] == each for each in _kinds().get(kind, ()))


@cache
def _same(section: str) -> Mapping[Words, Words]:
    """From a name to the one that stands for it, both in the singular."""
    return {other: name for name, others in _groups(section) for other in others}


@cache
def _longest() -> int:
    """Words of the longest name that gives way to another."""
    return max(map(len, _same("same")))


@cache
def _kinds() -> Mapping[Words, list[Words]]:
    found: dict[Words, list[Words]] = {}
    for kind, others in _groups("may be the same"):
        found.setdefault(with_one_name(kind), []).extend(map(with_one_name, others))
    return found


@cache
def _names(section: str) -> frozenset[Words]:
    return frozenset(with_one_name(_singular(line)) for line in _lines(section))


def _groups(section: str) -> Iterator[tuple[Words, list[Words]]]:
    for line in _lines(section):
        name, others = line.split(" = ")
        yield _singular(name), list(map(_singular, others.split(", ")))


def _singular(name: str) -> Words:
    return tuple(singular(word) for word in name.split())


@cache
def _lines(section: str) -> tuple[str, ...]:
    text = (files(__package__) / "words" / "by_hand.txt").read_text(encoding="utf-8")
    body = text.partition(f"\n[{section}]\n")[2].partition("\n[")[0]
    return tuple(line for line in body.splitlines() if line and not line.startswith("#"))
