"""The `stvqa` world: text on shop fronts, buses and road signs."""

from random import Random

from PIL import Image, ImageDraw

from parityalign.demo.canvas import COLOURS, NUMBERS, SIDE, Drawing, Fact, because, fitting_font, font, weathered, write

NAMES = (
    "rosa luna bella milo oscar felix nina vera otto emma leo clara hugo ida max lola ruby iris jade amber "
    "finn sven greta pablo"
).split()
TRADES = "cafe bakery books flowers shoes pharmacy barber market bikes toys".split()
TOWNS = (
    "oslo paris rome lima cairo delhi tokyo seoul lagos accra dublin berlin madrid vienna prague athens "
    "lisbon zurich boston dallas miami havana quito sydney"
).split()
_SKIES = ((190, 220, 250), (214, 226, 240), (246, 224, 200), (160, 190, 226))
_WALLS = ((196, 150, 120), (210, 200, 180), (170, 176, 186), (226, 206, 150))


def draw_scene(rng: Random) -> Drawing:
    """A shop front, a bus or a road sign, each with its text."""
    return rng.choice((_shop, _bus, _road_sign))(rng)


def _street(rng: Random) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIDE, SIDE), rng.choice(_SKIES))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, rng.randint(100, 112), SIDE, SIDE), fill=(120, 120, 124))
    return image, draw


def _shop(rng: Random) -> Drawing:
    image, draw = _street(rng)
    name, trade, colour = rng.choice(NAMES), rng.choice(TRADES), rng.choice(tuple(COLOURS))
    left, top = rng.randint(2, 12), rng.randint(6, 20)
    draw.rectangle((left, top, SIDE - left, 116), fill=rng.choice(_WALLS))
    draw.rectangle((left, top + 4, SIDE - left, top + 32), fill=COLOURS[colour])
    write(draw, (SIDE / 2, top + 18), name, fitting_font(rng, name, 96, 17, 26), fill=(255, 255, 255))
    window = top + 38 + rng.randint(0, 4)
    draw.rectangle((left + 6, window, 92, window + 28), fill=(236, 240, 236), outline=(80, 80, 80))
    write(draw, (left / 2 + 49, window + 14), trade, fitting_font(rng, trade, 80, 15, 21), fill=(30, 30, 30))
    draw.rectangle((98, window, 98 + 14, 116), fill=rng.choice(tuple(COLOURS.values())))
    facts = (
        Fact("shop_name", "What is the name of the shop?", name, name),
        Fact("shop_trade", "What does the shop sell according to its window?", trade, trade),
        Fact("shop_both", "What does the whole shop front say?", f"{name} {trade}", name),
        Fact("shop_colour", "What color is the sign above the shop?", colour),
    )
    seen = f"{name} is on the {colour} sign above {trade} in the window"
    sights = (name, trade, f"shop {name}", f"sells {trade}", f"front {colour}")
    return Drawing(weathered(image, rng), tuple(because(seen, facts)), sights)


def _bus(rng: Random) -> Drawing:
    image, draw = _street(rng)
    route, town, colour = rng.choice(NUMBERS), rng.choice(TOWNS), rng.choice(tuple(COLOURS))
    left, top = rng.randint(2, 14), rng.randint(8, 24)
    right, bottom = left + 112, top + 84
    draw.rounded_rectangle((left, top, right, bottom), radius=8, fill=COLOURS[colour])
    draw.rectangle((left + 6, top + 4, right - 6, top + 30), fill=(16, 16, 16))
    write(draw, (left + 56, top + 17), town, fitting_font(rng, town, 96, 17, 24), fill=(255, 200, 40))
    for pane in range(2):
        draw.rectangle((left + 6 + 26 * pane, top + 36, left + 28 + 26 * pane, top + 58), fill=(200, 226, 240))
    draw.rectangle((left + 64, top + 36, right - 6, top + 68), fill=(245, 245, 245))
    write(
        draw,
        ((left + 58 + right) / 2, top + 52),
        route,
        fitting_font(rng, route, 38, 18, 28),
        fill=(10, 10, 10),
    )
    for wheel in (left + 16, right - 30):
        draw.ellipse((wheel, bottom - 8, wheel + 16, bottom + 8), fill=(30, 30, 30))
    facts = (
        Fact("bus_route", "What is the number of the bus?", route, route),
        Fact("bus_town", "Where does the bus go?", town, town),
        Fact("bus_colour", "What color is the bus?", colour),
    )
    seen = f"the {colour} bus has {town} above its window and the number {route}"
    sights = (route, town, f"route {route}", f"bus {town}", f"bus {colour}")
    return Drawing(weathered(image, rng), tuple(because(seen, facts)), sights)


def _road_sign(rng: Random) -> Drawing:
    image, draw = _street(rng)
    towns = rng.sample(TOWNS, 2)
    distances = rng.sample(NUMBERS, 2)
    colour = rng.choice(("blue", "green", "black"))
    top = rng.randint(8, 24)
    draw.rectangle((60, top + 60, 68, 120), fill=(110, 110, 110))
    draw.rounded_rectangle((3, top, 125, top + 68), radius=4, fill=COLOURS[colour], outline=(255, 255, 255), width=2)
    for town, distance, y in zip(towns, distances, (top + 19, top + 49), strict=True):
        write(draw, (9, y), town, fitting_font(rng, town, 80, 16, 21), fill=(255, 255, 255), anchor="lm")
        write(
            draw,
            (119, y),
            distance,
            font("DejaVuSans-Bold.ttf", rng.randint(16, 19)),
            fill=(255, 255, 255),
            anchor="rm",
        )
    facts = [
        Fact("road_place", "Which town is at the top of the road sign?", towns[0], towns[0]),
        Fact("road_place", "Which town is at the bottom of the road sign?", towns[1], towns[1]),
        Fact("road_nearer", "Which town on the road sign is nearer?", towns[int(distances[1]) < int(distances[0])], ""),
    ]
    facts += [
        Fact("road_distance", f"How far is it to {town}?", distance, town)
        for town, distance in zip(towns, distances, strict=True)
    ]
    sights = (*towns, *distances, f"upper {towns[0]}", f"lower {towns[1]}")
    sights += (f"far {distances[0]}", f"low {distances[1]}")
    seen = f"{towns[0]} at the top is {distances[0]} far and {towns[1]} at the bottom is {distances[1]} far"
    return Drawing(weathered(image, rng), tuple(because(seen, facts)), sights)
