"""A source of images. `images: cards:6` draws the first six cards; they lie in no file."""

from functools import partial

from parityalign.core import Found, Source, SourceKind, UserError
from parityalign_guest.palette import COLOURS, card


def open_source(location: str) -> Source:
    """So many cards as the location says."""
    if not location.isdecimal():
        raise UserError(f"cards:{location} does not say how many cards; write a number, such as cards:6")
    colours = list(COLOURS)[: int(location)]
    return Source(
        where=f"cards:{location}",
        digest=lambda: location,
        count=lambda: len(colours),
        images=lambda: (Found(name=f"cards:{colour}", read=partial(card, colour)) for colour in colours),
        holds_files=False,
    )


SOURCE = SourceKind(open_source, by_name=True)
"""`by_name`: a location such as 6 is not a path on this machine."""
