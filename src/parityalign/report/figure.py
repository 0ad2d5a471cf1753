"""Charts as files of their own, for pages that are not ours."""

from markupsafe import Markup

from parityalign.core import Scores
from parityalign.report.charts import element, score_chart
from parityalign.report.page import environment
from parityalign.report.picking import PickingStudy, studied_lanes
from parityalign.report.picking_chart import picking_chart

_MARGIN = 12
"""To the left and right of a drawing, in its units."""


def score_figure(scores: Scores) -> str:
    """An SVG with the page's colours, on a ground: it does not know what it will stand on."""
    return str(score_chart(scores, *_behind(), margin=_MARGIN, xmlns="http://www.w3.org/2000/svg", width=800))


def picking_figure(study: PickingStudy) -> str:
    """The same of the study of what picking gaps brings."""
    lanes = studied_lanes(study)
    return str(picking_chart(lanes, *_behind(), margin=_MARGIN, xmlns="http://www.w3.org/2000/svg", width=800))


def _behind() -> tuple[Markup, Markup]:
    """The style and the ground."""
    styles = (environment().get_template(f"{name}.css").render() for name in ("colours", "charts"))
    style = element("style", Markup("\n").join([*map(Markup, styles), "svg { font-family: system-ui, sans-serif; }"]))
    return style, element("rect", x=-_MARGIN, width="100%", height="100%", fill="var(--paper)")
