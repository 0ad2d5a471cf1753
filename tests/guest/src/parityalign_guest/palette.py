"""The colours of the cards, and how a card is drawn. No part, but what several parts share."""

from io import BytesIO

from PIL import Image

COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 140, 50),
    "blue": (30, 60, 200),
    "yellow": (230, 210, 40),
    "purple": (120, 40, 140),
    "orange": (240, 130, 20),
    "white": (250, 250, 250),
    "black": (5, 5, 5),
}


def card(colour: str) -> bytes:
    """A card of one colour, as the bytes of a PNG file."""
    file = BytesIO()
    Image.new("RGB", (64, 64), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()
