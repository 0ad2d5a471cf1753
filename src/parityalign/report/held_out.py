"""What the held-out images say of levelling, as rows and sentences of plain text; it needs no labels."""

from typing import NamedTuple

from parityalign.core import Agreement, HeldOut, Share
from parityalign.report.tables import ABSENT, counted, estimate_cell


class HeldOutRow(NamedTuple):
    """One line of the table of held-out images; every cell is text."""

    task: str
    pairs: str
    before: str
    after: str
    difference: str
    gaps_closed: str
    lost: str


HELD_OUT_HEADINGS = HeldOutRow(
    "task", "held-out pairs", "right before, %", "right after, %", "difference", "gaps closed, %", "lost, %"
)


def held_out_table(held_out: HeldOut | None) -> list[HeldOutRow]:
    """One row per task, and one for all if there are several; none if nothing was held out."""
    if held_out is None:
        return []
    rows = [_row(task, found) for task, found in held_out.tasks.items()]
    return [*rows, _row("all", held_out.total)] if len(rows) > 1 else rows


def held_out_line(held_out: HeldOut | None) -> str:
    """The result on the held-out images in one sentence; empty if nothing was held out."""
    if held_out is None:
        return ""
    found = held_out.total
    where = f"of {counted(found.pairs, 'pair')} on {counted(found.images, 'held-out image')}"
    if not held_out.accepted:
        surely = " beyond chance" if found.after.count > found.before.count else ""
        return (
            f"Nothing was gained{surely}, so the student was left as it was: {where} it had {found.before.count:,} "
            f"right, and {found.after.count:,} when levelled."
        )
    return (
        f"The student agrees with the teacher on {_percent(found.after)} % {where}, before on "
        f"{_percent(found.before)} %: {estimate_cell(found.difference, signed=True)} points. It closed "
        f"{found.gaps_closed.count:,} of {counted(found.gaps_closed.of, 'gap')} and lost {found.lost.count:,} of "
        f"{found.lost.of:,} that it had right."
    )


def _row(task: str, found: Agreement) -> HeldOutRow:
    return HeldOutRow(
        task,
        f"{found.pairs:,}",
        _cell(found.before),
        _cell(found.after),
        estimate_cell(found.difference, signed=True),
        _cell(found.gaps_closed),
        _cell(found.lost),
    )


def _cell(share: Share) -> str:
    if share.share is None:
        return ABSENT
    interval = f" [{100 * share.ci[0]:.1f}, {100 * share.ci[1]:.1f}]" if share.ci else ""
    return f"{_percent(share)}{interval}"


def _percent(share: Share) -> str:
    return ABSENT if share.share is None else f"{100 * share.share:.1f}"
