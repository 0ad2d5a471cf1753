"""What the intervals of scores say, and what they do not."""

from pathlib import Path

from parityalign.core import DEMO_DATA, DRAWN
from parityalign.report.picking import DemoSeeds, picking_study

OTHER_TRAININGS = (
    "An interval says what other images would give; another training, with another seed or on another machine, differs "
    "beside that, and only trainings with other seeds tell by how much."
)


def other_trainings(run: Path) -> str:
    """That in a sentence, and of a run of the demo what its seeds came to."""
    drawn = (run / DEMO_DATA / DRAWN).is_file()
    return f"{OTHER_TRAININGS} {_of_the_demo(picking_study().demo)}" if drawn else OTHER_TRAININGS


def _of_the_demo(found: DemoSeeds) -> str:
    return (
        f"To compare: with {len(found.gains)} seeds, each with pictures of its own too, the bundled student gained "
        f"{min(found.gains):.1f} to {max(found.gains):.1f} points in shorter trainings of {found.steps:,} steps."
    )
