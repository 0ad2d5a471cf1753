"""Tests whether a remote model sees pictures. Some servers silently drop them and answer from the text."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw

from parityalign.core import Decoding, Request, Said, UserError, WorkFailed

QUESTION = "What colours are in the picture?\nAnswer the question using a single word or phrase."
DECODING = Decoding(max_new_tokens=16)
AFTER_THOUGHTS = Decoding(max_new_tokens=1024)
"""For a model that thinks before it answers."""

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
        WorkFailed: The pictures make no difference, or no answer comes of thinking about them.
    """
    with TemporaryDirectory() as folder:
        drawing, decoding = _about(_drawn(), Path(folder, "drawn to test the server.png")), DECODING
        drawn = await ask(drawing, decoding)
        if _is_cut_off(drawn):
            decoding = AFTER_THOUGHTS
            drawn = await ask(drawing, decoding)
        white = Image.new("RGB", _BLANK_SIZE, "white")
        blank = await ask(_about(white, Path(folder, "blank to test the server.png")), decoding)
    if drawn.text != blank.text or drawn.prompt_tokens != blank.prompt_tokens:
        return
    if drawn.prompt_tokens is not None and await _text_tokens(ask) != drawn.prompt_tokens:
        return
    if _is_cut_off(drawn):
        raise WorkFailed(
            f"{name}: asked for the colours of a drawn picture, it was cut off at {decoding.max_new_tokens:,} tokens "
            "before it said anything, so nobody can tell whether it sees pictures.\n"
            "Switch its thinking off on the server, or for vLLM and SGLang by server.extra_body: "
            "{chat_template_kwargs: {enable_thinking: false}}, or serve another model, and run the same command."
        )
    tokens = "uncounted" if drawn.prompt_tokens is None else str(drawn.prompt_tokens)
    raise WorkFailed(
        f"{name} does not see pictures: asked for the colours of a drawn picture and of a blank one, it said "
        f"{drawn.text[:80]!r} both times, and both prompts have the same number of tokens ({tokens}).\n"
        "Serve a vision-language model, with its image input switched on, and run the same command."
    )


def _is_cut_off(said: Said) -> bool:
    return said.finish == "length" and not said.text.strip()


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
