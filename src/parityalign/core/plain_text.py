"""Text for a terminal: what a file, a model or a server says is shown, and never obeyed."""

import re

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f"  # C0 but tab and line end: escape sequences, bell, carriage return, backspace
    "\x80-\x9f"  # C1: the same sequences as single characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # change the direction of writing, so a name reads as another
    "\ud800-\udfff]"  # halves of pairs and undecodable file names, which no output takes
)


def printable(text: str) -> str:
    r"""The text with everything that a terminal would obey written out, such as `\x1b` and `\u202e`.

    Tabs and line ends stay, and DEL, which terminals ignore and JSON does not escape.
    """
    return _OBEYED.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
