"""The four worlds by task, and the kinds of questions that they have."""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from parityalign.demo.canvas import Drawing
from parityalign.demo.charts import draw_chart
from parityalign.demo.knowledge import draw_knowledge
from parityalign.demo.reading import draw_reading
from parityalign.demo.scenes import draw_scene

WORLDS: Mapping[str, Callable[[Random], Drawing]] = MappingProxyType(
    {"textvqa": draw_reading, "stvqa": draw_scene, "chartqa": draw_chart, "okvqa": draw_knowledge}
)

KINDS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "textvqa": {
            "the text on a sign": ("read",),
            "a number": ("number", "amount"),
            "a product": ("label",),
            "a unit": ("unit",),
            "the text at a certain place": ("place",),
            "the text in a certain colour": ("ink",),
            "a colour": ("colour",),
        },
        "stvqa": {
            "the name of a shop or a business": ("shop_name",),
            "the name of a street, a town or a place": ("road_nearer", "bus_town"),
            "a number on a vehicle, a house or a sign": ("bus_route",),
            "a direction, a destination or a distance": ("road_distance", "bus_town"),
            "what is sold or offered": ("shop_trade",),
            "the text on a certain object": ("shop_both",),
            "the text at a certain place": ("road_place",),
            "a colour": ("shop_colour", "bus_colour"),
        },
        "chartqa": {
            "looking up one value": ("lookup_bar", "lookup_point", "lookup_slice"),
            "a comparison of two values": ("greater",),
            "the largest or the smallest value": ("highest_value", "lowest_value"),
            "which part has the largest or the smallest value": ("highest", "lowest"),
            "a count of the parts": ("count",),
            "a difference or a sum": ("difference",),
            "what a colour or a label stands for": ("colour", "by_colour"),
            "the title, an axis or a unit": ("title",),
        },
        "okvqa": {
            "the name of a thing or a species": ("name",),
            "where one finds it": ("place",),
            "what something is used for": ("use",),
            "who uses it or made it": ("user",),
        },
    }
)
"""By task: kinds of questions as the teacher is asked for them, and the kinds of a world's facts that they are about.

They are the skill's where it has them; the bundled teacher is taught to write each.
"""
