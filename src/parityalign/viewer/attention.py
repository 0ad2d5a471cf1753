"""Where both models look on a pair's picture, read from the run's signals when the pair is shown."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from parityalign.core import DISCREPANCY_FOLDER, STUDENT, TEACHER, ObservationRef, UserError
from parityalign.report import attention_grid, maps_at
from parityalign.viewer.watching import WatchedRun


class Looks(NamedTuple):
    """What is known of two models' attention on one picture."""

    drawn: Mapping[str, Markup]
    """By model: its cells, to be laid over the picture; empty: the run has none."""
    problem: str = ""
    """Why they cannot be shown, in words."""


def looks_of(run: WatchedRun, pair_id: str) -> Looks:
    """The attention of teacher and student, both scored on the pair's answer."""
    index = run.index()
    rows = index.rows("SELECT * FROM looks WHERE pair_id = ?", pair_id) if index else []
    lines = {
        row["who"]: ObservationRef(
            pair_id=pair_id, shard=row["shard"], row=row["line"], tokens=row["tokens"], has_places=True
        )
        for row in rows
    }
    drawn = {}
    try:
        for who in (TEACHER, STUDENT):
            if who in lines:
                ((_, cells),) = maps_at(run.path / DISCREPANCY_FOLDER, [lines[who]])
                if math.isqrt(cells.size) ** 2 != cells.size or not np.isfinite(cells).all():
                    return Looks({}, f"what {lines[who].shard} has of this pair is no map of a picture")
                drawn[who] = attention_grid(cells, who)
    except UserError as problem:
        return Looks({}, str(problem))
    return Looks(drawn)
