"""The four worlds by task."""

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
