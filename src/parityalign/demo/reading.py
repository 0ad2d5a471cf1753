"""The `textvqa` world: words and numbers on signs and labels."""

from random import Random

from PIL import ImageDraw

from parityalign.demo.canvas import (
    COLOURS,
    NUMBERS,
    PALE,
    SIDE,
    Drawing,
    Fact,
    backdrop,
    because,
    fitting_font,
    weathered,
    write,
)

WORDS = (
    "stop exit open sale milk salt taxi hotel bank push pull wait slow bread juice soap fire cold fresh "
    "danger enter closed ticket police school museum garden sugar coffee butter honey pepper tea rice "
    "water private parking welcome library office lift stairs gate beach staff paint men women poison "
    "cheese apple lemon orange pizza soup flour mint"
).split()


def draw_reading(rng: Random) -> Drawing:
    """A sign with one text, a sign with two texts in two colours, or a label with a product and a number."""
    return rng.choice((_one_text, _two_texts, _two_texts, _label))(rng)


def _plate(rng: Random, height: int) -> tuple[Drawing, ImageDraw.ImageDraw, tuple[int, int, int, int]]:
    image = backdrop(rng)
    draw = ImageDraw.Draw(image)
    width = rng.randint(96, 120)
    left, top = rng.randint(2, SIDE - width - 2), rng.randint(4, SIDE - height - 4)
    box = (left, top, left + width, top + height)
    draw.rounded_rectangle(
        box, radius=rng.randint(0, 10), fill=rng.choice(PALE), outline=(90, 90, 90), width=rng.randint(1, 3)
    )
    return Drawing(image, (), ()), draw, box


def _one_text(rng: Random) -> Drawing:
    blank, draw, (left, top, right, bottom) = _plate(rng, rng.randint(40, 70))
    text = rng.choice(WORDS) if rng.random() < 0.7 else rng.choice(NUMBERS)
    colour = rng.choice(tuple(COLOURS))
    face = fitting_font(rng, text, right - left - 10, largest=34)
    write(draw, ((left + right) / 2, (top + bottom) / 2), text, face, fill=COLOURS[colour])
    facts = [
        Fact("read", "What does the sign say?", text, text),
        Fact("colour", "What color is the writing?", colour),
    ]
    if text in NUMBERS:
        facts.append(Fact("number", "What number is on the sign?", text, text))
    else:
        facts.append(Fact("read", "What word is written on the sign?", text, text))
    sights = (f"only {text}", text, f"{colour} {text}")
    return Drawing(weathered(blank.image, rng), tuple(because(f"{text} is written in {colour}", facts)), sights)


def _two_texts(rng: Random) -> Drawing:
    blank, draw, (left, top, right, bottom) = _plate(rng, rng.randint(66, 110))
    upper = rng.choice(WORDS)
    lower = rng.choice([word for word in WORDS if word != upper]) if rng.random() < 0.7 else rng.choice(NUMBERS)
    colours = rng.sample(tuple(COLOURS), 2)
    quarter = (bottom - top) / 4
    for text, colour, y in ((upper, colours[0], top + quarter), (lower, colours[1], bottom - quarter)):
        face = fitting_font(rng, text, right - left - 10)
        write(draw, ((left + right) / 2, y), text, face, fill=COLOURS[colour])
    facts = [
        Fact("place", "What is written at the top?", upper, upper),
        Fact("place", "What is written at the bottom?", lower, lower),
        Fact("ink", f"What is written in {colours[0]}?", upper, upper),
        Fact("ink", f"What is written in {colours[1]}?", lower, lower),
    ]
    if lower in NUMBERS:
        facts.append(Fact("number", "What number is on the sign?", lower, lower))
    sights = (
        f"top {upper}",
        f"bottom {lower}",
        upper,
        lower,
        f"{colours[0]} {upper}",
        f"{colours[1]} {lower}",
    )
    seen = f"{upper} is at the top in {colours[0]} and {lower} at the bottom in {colours[1]}"
    return Drawing(weathered(blank.image, rng), tuple(because(seen, facts)), sights)


def _label(rng: Random) -> Drawing:
    blank, draw, (left, top, right, bottom) = _plate(rng, rng.randint(76, 110))
    product, number = rng.choice(WORDS), rng.choice(NUMBERS)
    band = rng.choice(tuple(COLOURS))
    middle = (top + bottom) // 2
    draw.rectangle((left + 3, top + 3, right - 3, middle), fill=COLOURS[band])
    write(
        draw,
        ((left + right) / 2, (top + 3 + middle) / 2),
        product,
        fitting_font(rng, product, right - left - 12),
        fill=(255, 255, 255),
    )
    unit = rng.choice(("g", "ml", "%"))
    text = f"{number} {unit}"
    write(
        draw,
        ((left + right) / 2, (middle + bottom) / 2),
        text,
        fitting_font(rng, text, right - left - 12),
        fill=(20, 20, 20),
    )
    facts = (
        Fact("label", "What product is on the label?", product, product),
        Fact("amount", "What number is on the label?", number, number),
        Fact("unit", "What is the unit on the label?", unit, unit),
        Fact("colour", "What color is the band on the label?", band),
    )
    return Drawing(
        weathered(blank.image, rng),
        tuple(because(f"{product} is on the {band} band and {number} {unit} at the bottom", facts)),
        (f"product {product}", product, number, f"amount {number}", f"unit {unit}", f"band {band}"),
    )
