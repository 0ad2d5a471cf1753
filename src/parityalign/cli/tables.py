"""Tables of plain text for a console, and counts in one line."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> Table:
    """A table for a plain console; its first `texts` columns are text, which may wrap, the others numbers."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, heading in enumerate(headings):
        if place < texts:
            drawn.add_column(heading, overflow="fold")
        else:
            drawn.add_column(heading, justify="right")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def show_table(
    console: Console, caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int
) -> None:
    """Prints a table with its caption above and an empty line after it; without rows only the caption."""
    console.print(caption, soft_wrap=True)
    if rows:
        console.print(table(headings, rows, texts=texts))
    console.print()


def counted(counts: Mapping[str, int]) -> str:
    """Counts in one line, such as `gaps 12, pairs 3,400`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
