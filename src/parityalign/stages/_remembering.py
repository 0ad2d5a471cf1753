"""A model that remembers what it said: only what is new to it is asked, and it is loaded only for that."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from parityalign.core import Decoding, Model, Request


def remembering(replies: Mapping[tuple[str, str], str], name: str, load: Callable[[], Model]) -> Callable[[], Model]:
    """A way to load a model that greedily said these things before.

    Args:
        replies: (image, prompt) -> what it said; of greedy decoding with the same limit on tokens.
        name: The model's.
        load: Loads the model itself.
    """
    return lambda: _Remembering(replies, name, load)


class _Remembering:
    """A `seams.Model`."""

    special_tokens: frozenset[str] = frozenset()
    """Not known without the model; what was asked before has none, and a prompter breaks up those in new questions."""

    def __init__(self, replies: Mapping[tuple[str, str], str], name: str, load: Callable[[], Model]) -> None:
        self.name = name
        self._replies = replies
        self._load = load

    @cached_property
    def _model(self) -> Model:
        return self._load()

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order."""
        new = [request for request in requests if (request.image, request.prompt) not in self._replies]
        asked = iter(self._model.generate(new, decoding) if new else [])
        known = (self._replies.get((request.image, request.prompt)) for request in requests)
        return [next(asked) if reply is None else reply for reply in known]
