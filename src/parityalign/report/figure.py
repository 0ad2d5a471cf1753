"""The chart of the scores as a file of its own, for pages that are not ours."""

from markupsafe import Markup

from parityalign.core import Scores
from parityalign.report.charts import element, score_chart
from parityalign.report.page import environment

_MARGIN = 12
"""To the left and right of the drawing, in its units."""


def score_figure(scores: Scores) -> str:
    """An SVG with the page's colours, on a ground: it does not know what it will stand on."""
    styles = (environment().get_template(f"{name}.css").render() for name in ("colours", "charts"))
    style = element("style", Markup("\n").join([*map(Markup, styles), "svg { font-family: system-ui, sans-serif; }"]))
    ground = element("rect", x=-_MARGIN, width="100%", height="100%", fill="var(--paper)")
    return str(score_chart(scores, style, ground, margin=_MARGIN, xmlns="http://www.w3.org/2000/svg", width=800))
