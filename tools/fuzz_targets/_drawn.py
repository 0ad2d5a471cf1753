"""Inputs that look right at first: pieces of a form put together, and good texts with something broken in them."""

from collections.abc import Sequence

from hypothesis import strategies as st

_CHARACTERS = st.text(max_size=12)


def of_pieces(pieces: Sequence[str], most: int = 14) -> st.SearchStrategy[str]:
    """Pieces of a form in any order, other characters between them; at times a piece stands there very often."""
    piece = st.sampled_from(pieces)
    often = st.builds(lambda text, times: text * times, piece, st.sampled_from((2, 9, 300)))
    return st.lists(piece | piece | _CHARACTERS | often, max_size=most).map("".join)


@st.composite
def broken(draw: st.DrawFn, good: Sequence[str], pieces: Sequence[str] = ("",)) -> str:
    """A good text, up to six times with a part of it left out, doubled, moved or replaced."""
    text = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(0, 6))):
        first, second = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        part = text[first:second]
        between = draw(st.sampled_from(("", part * 2, part[::-1])) | st.sampled_from(pieces) | _CHARACTERS)
        text = text[:first] + between + text[second:]
    return text
