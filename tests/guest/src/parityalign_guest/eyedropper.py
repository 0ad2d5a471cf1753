"""A way to reach a model. `eyedropper:all` names the colour in a picture's middle; `eyedropper:red,blue` knows two.

This one answers in this process. A model that answers from elsewhere has `connect` in place of `load`, and gets the
ledger, the attempts and the budget of `server` without doing anything for them.
"""

from collections.abc import Sequence

from PIL import Image

from parityalign.config import Backend, LoadingSettings
from parityalign.core import Decoding, Request, UserError
from parityalign_guest.palette import COLOURS


class Eyedropper:
    """Names the nearest colour that it knows."""

    special_tokens: frozenset[str] = frozenset()

    def __init__(self, location: str) -> None:
        self.name = f"eyedropper:{location}"
        self._knows = list(COLOURS) if location == "all" else location.split(",")

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> str:
        with Image.open(request.image) as picture:
            x, y = picture.width // 2, picture.height // 2
            pixel = picture.convert("RGB").crop((x, y, x + 1, y + 1)).tobytes()

        def distance(colour: str) -> int:
            return sum(abs(value - seen) for value, seen in zip(COLOURS[colour], pixel, strict=True))

        colour = min(self._knows, key=distance)
        asked_to_write = request.prompt.startswith("Write one question")
        return f"Question: What colour is the card? Answer: {colour}" if asked_to_write else colour


def load(location: str, loading: LoadingSettings) -> Eyedropper:
    """Makes the model; `loading` has what RUN.yaml says of how it is loaded."""
    return Eyedropper(location)


def check(location: str, loading: LoadingSettings) -> None:
    """Finds what is wrong before anything is computed."""
    unknown = [] if location == "all" else [name for name in location.split(",") if name not in COLOURS]
    if unknown:
        raise UserError(f"eyedropper:{location} has no colour {unknown[0]!r}; there are {', '.join(COLOURS)}")


BACKEND = Backend(load=load, check=check)
