"""The page of a preview: a few pictures with the pair that the teacher wrote and what came of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from parityalign.core import Pair, Reply, Verdict, write_whole
from parityalign.report.flow import VERDICT_WORDS
from parityalign.report.gallery import thumbnail
from parityalign.report.page import environment


class Preview(NamedTuple):
    """One image of a preview."""

    image: Path
    reply: Reply
    """What the teacher wrote."""
    pair: Pair | None
    """The pair in it; None if it holds none."""
    verdict: Verdict | None

    @property
    def outcome(self) -> str:
        """What came of it, in words."""
        if self.verdict is None:
            return f"no pair: {self.reply.outcome}"
        told = VERDICT_WORDS[self.verdict.verdict]
        return f"{told}: {self.verdict.reason}" if self.verdict.verdict == "dropped" else told


def write_preview(path: Path, shown: Sequence[Preview], name: str) -> None:
    """Writes the page, self-contained.

    Args:
        path: The file.
        shown: What to show.
        name: The run's name.
    """
    rows = [(each, thumbnail(each.image)) for each in shown]
    page = environment().get_template("preview.html").render(name=name, rows=rows)
    write_whole(path, page.encode("utf-8", "replace"))
