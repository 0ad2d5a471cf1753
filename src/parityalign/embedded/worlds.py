"""The four worlds by the task that they stand for."""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from parityalign.embedded.canvas import Picture
from parityalign.embedded.charts import draw_chart
from parityalign.embedded.knowledge import draw_knowledge
from parityalign.embedded.reading import draw_reading
from parityalign.embedded.scenes import draw_scene

WORLDS: Mapping[str, Callable[[Random], Picture]] = MappingProxyType(
    {"textvqa": draw_reading, "stvqa": draw_scene, "chartqa": draw_chart, "okvqa": draw_knowledge}
)
