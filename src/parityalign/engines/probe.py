"""Tests whether a remote model sees pictures. Some servers silently drop them and answer from the text."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw

from parityalign.core import Decoding, Request, Said, UserError, WorkFailed

QUESTION = "What colours are in the picture?\nAnswer the question using a single word or phrase."
DECODING = Decoding(max_new_tokens=16)

_SIZE, _BLANK_SIZE = (224, 160), (320, 320)
"""Sides of the two test pictures; they differ, since for many models larger pictures have more tokens."""

Ask = Callable[[Request, Decoding], Awaitable[Said]]


async def require_sight(name: str, ask: Ask) -> None:
    """Asks about a drawn picture, a blank one and, if still in doubt, without a picture.

    A small model may give the same answer for both pictures. Then the prompt lengths are compared, if reported.

    Args:
        name: Of the model, for the message.
        ask: Asks a question.

    Raises:
        WorkFailed: The pictures make no difference.
    """
    with TemporaryDirectory() as folder:
        drawn = await ask(_about(_drawn(), Path(folder, "drawn to test the server.png")), DECODING)
        white = Image.new("RGB", _BLANK_SIZE, "white")
        blank = await ask(_about(white, Path(folder, "blank to test the server.png")), DECODING)
    if drawn.text != blank.text or drawn.prompt_tokens != blank.prompt_tokens:
        return
    if drawn.prompt_tokens is not None and await _text_tokens(ask) != drawn.prompt_tokens:
        return
    tokens = "uncounted" if drawn.prompt_tokens is None else str(drawn.prompt_tokens)
    raise WorkFailed(
        f"{name} does not see pictures: asked for the colours of a drawn picture and of a blank one, it said "
        f"{drawn.text[:80]!r} both times, and both prompts have the same number of tokens ({tokens}).\n"
        "Serve a vision-language model, with its image input switched on, and run the same command."
    )


async def _text_tokens(ask: Ask) -> int | None:
    """Tokens of the prompt without a picture; None if the server refuses that, which shows that it expects pictures."""
    try:
        return (await ask(Request("", QUESTION), DECODING)).prompt_tokens
    except UserError:
        return None


def _about(image: Image.Image, path: Path) -> Request:
    image.save(path)
    return Request(str(path), QUESTION)


def _drawn() -> Image.Image:
    image = Image.new("RGB", _SIZE, "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((20, 30, 100, 110), fill="blue")
    pen.ellipse((120, 60, 200, 140), fill="red")
    return image
