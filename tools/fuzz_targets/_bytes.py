"""Good files with something broken in their bytes."""

from collections.abc import Sequence

from hypothesis import strategies as st

_NUMBERS = [b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8, b"\xff\xff\xff\x7f", b"\0" * 12]


@st.composite
def broken_bytes(draw: st.DrawFn, good: Sequence[bytes], pieces: Sequence[bytes] = (b"",)) -> bytes:
    """A good file, up to six times with bytes of it overwritten, left out, doubled or moved."""
    content = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(0, 6))):
        first = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from((0, 1, 4, 12, 512)) | st.integers(0, len(content)))
        part = content[first : first + length]
        between = draw(st.sampled_from((b"", part * 2, part[::-1], *_NUMBERS, *pieces)) | st.binary(max_size=12))
        keep = len(between) if draw(st.booleans()) else length  # what lies behind stays where it is, or moves
        content = content[:first] + between + content[first + keep :]
    return content
