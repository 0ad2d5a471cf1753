"""The `okvqa` world: symbols and objects with facts that the picture does not show."""

from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw

from parityalign.demo.canvas import COLOURS, SIDE, Drawing, Fact, backdrop, font, weathered


class Thing(NamedTuple):
    """A symbol of DejaVu Sans and common knowledge about its meaning."""

    name: str
    place: str
    """Where it is found."""
    use: str
    """What it is used for."""
    user: str
    """Whose it is."""


THINGS = {
    "☀": Thing("sun", "sky", "light", "farmer"),
    "☁": Thing("cloud", "sky", "rain", "gardener"),
    "☂": Thing("umbrella", "street", "rain", "walker"),
    "☃": Thing("snowman", "garden", "fun", "child"),
    "★": Thing("star", "space", "wishing", "astronomer"),
    "☎": Thing("telephone", "office", "talking", "secretary"),
    "☕": Thing("coffee", "cafe", "drinking", "waiter"),
    "☠": Thing("skull", "grave", "warning", "pirate"),
    "☢": Thing("radiation", "reactor", "warning", "physicist"),
    "☣": Thing("biohazard", "laboratory", "warning", "biologist"),
    "☮": Thing("peace", "march", "protest", "hippie"),
    "☯": Thing("balance", "temple", "harmony", "monk"),
    "☺": Thing("smile", "face", "joy", "clown"),
    "☾": Thing("moon", "night", "tides", "sailor"),
    "♔": Thing("king", "castle", "ruling", "emperor"),
    "♞": Thing("knight", "stable", "riding", "soldier"),
    "♜": Thing("rook", "castle", "defence", "guard"),
    "♠": Thing("spade", "casino", "cards", "gambler"),
    "♣": Thing("club", "casino", "cards", "dealer"),
    "♥": Thing("heart", "chest", "love", "cardiologist"),
    "♦": Thing("diamond", "mine", "jewelry", "jeweler"),
    "♨": Thing("spring", "spa", "bathing", "tourist"),
    "♫": Thing("music", "concert", "dancing", "singer"),
    "♻": Thing("recycling", "bin", "waste", "collector"),
    "♿": Thing("wheelchair", "hospital", "moving", "patient"),
    "⚑": Thing("flag", "mast", "signals", "scout"),
    "⚒": Thing("hammers", "mine", "digging", "miner"),
    "⚓": Thing("anchor", "ship", "mooring", "captain"),
    "⚔": Thing("swords", "museum", "fighting", "warrior"),
    "⚖": Thing("scales", "court", "justice", "judge"),
    "⚗": Thing("still", "laboratory", "distilling", "chemist"),
    "⚙": Thing("gear", "machine", "turning", "mechanic"),
    "⚛": Thing("atom", "school", "energy", "physicist"),
    "⚡": Thing("lightning", "storm", "electricity", "electrician"),
    "✂": Thing("scissors", "drawer", "cutting", "tailor"),
    "✈": Thing("plane", "airport", "flying", "pilot"),
    "✉": Thing("letter", "mailbox", "writing", "postman"),
    "✌": Thing("victory", "stadium", "winning", "champion"),
    "✎": Thing("pencil", "desk", "drawing", "artist"),
    "✝": Thing("cross", "church", "prayer", "priest"),
    "✡": Thing("hexagram", "synagogue", "prayer", "rabbi"),
    "❄": Thing("snowflake", "mountain", "skiing", "skier"),
    "✿": Thing("flower", "meadow", "honey", "florist"),
    "☘": Thing("clover", "field", "luck", "farmer"),
    "♟": Thing("pawn", "board", "playing", "beginner"),
}
_FONT = "DejaVuSans.ttf"
_QUESTIONS = {
    "name": "What is {} called?",
    "place": "Where would you find {}?",
    "use": "What is {} used for?",
    "user": "Who would use {}?",
}


def draw_knowledge(rng: Random) -> Drawing:
    """One thing, or two side by side."""
    image = backdrop(rng)
    count = rng.choice((1, 1, 2))
    signs = rng.sample(tuple(THINGS), count)
    facts: list[Fact] = []
    sights: list[str] = []
    for place, sign in enumerate(signs):
        colour = rng.choice(tuple(COLOURS))
        centre = (
            rng.randint(44, 84) if count == 1 else 34 + 60 * place + rng.randint(-4, 4),
            rng.randint(44, 84),
        )
        _stamp(image, sign, centre, rng.randint(50, 84) if count == 1 else rng.randint(44, 58), colour, rng)
        phrase = "this object" if count == 1 else f"the object on the {('left', 'right')[place]}"
        thing = THINGS[sign]
        for kind, ask in _QUESTIONS.items():
            known = f"used for {thing.use}" if kind == "name" else f"called {thing.name}"
            facts.append(Fact(kind, ask.format(phrase), getattr(thing, kind), thing.name, f"{phrase} is {known}"))
        sights += [thing.name, f"{('left', 'right')[place] if count == 2 else 'only'} {thing.name}"]
    return Drawing(weathered(image, rng), tuple(facts), tuple(sights))


def _stamp(image: Image.Image, sign: str, centre: tuple[int, int], size: int, colour: str, rng: Random) -> None:
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).text(centre, sign, font=font(_FONT, size), fill=255, anchor="mm")
    turned = mask.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR, center=centre)
    image.paste(COLOURS[colour], (0, 0), turned)
