"""Which questions are the same but for their wording."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from parityalign.core import Pair
from parityalign.stages._answer_words import words
from parityalign.stages.own_pairs import vouched_for

_SMALL = frozenset("is are was were be do does did of it its this that these those there".split())
"""Words that a question may be asked with or without."""


def gist(question: str) -> tuple[str, ...]:
    """What a question asks, whatever its wording: its words in one spelling and in their order, but for small ones.

    >>> gist("What is the brand of the phone?") == gist("What brand is this telephone?")
    True
    """
    found = words(question)
    return tuple(word for word in found if word not in _SMALL) or found


def crowded(pairs: Sequence[Pair], most: int, place: Callable[[Pair], str]) -> list[str]:
    """The ids of pairs beyond so many that ask the same in one place of a task.

    Those that a person vouches for stay, all of them, and are counted first; then come those with the first ids.
    """
    alike: defaultdict[tuple[str, str, tuple[str, ...]], list[Pair]] = defaultdict(list)
    for pair in pairs:
        alike[pair.task, place(pair), gist(pair.question)].append(pair)
    beyond = (sorted(same, key=lambda pair: (not vouched_for(pair), pair.pair_id))[most:] for same in alike.values())
    return [pair.pair_id for of_question in beyond for pair in of_question if not vouched_for(pair)]
