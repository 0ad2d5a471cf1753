"""Tables of plain text for a console, in which no word is broken, and counts in one line."""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill

from rich.console import Console
from rich.table import Table

_GAP = 2
"""Spaces between two columns."""
_INTERVAL = " ["
"""Where a number's interval begins, which may stand below it."""
_LONGEST_WORD = 24
"""A longer word, such as a path, may be broken."""

Rows = Sequence[Sequence[str]]


def show_table(console: Console, caption: str, headings: Sequence[str], rows: Rows, *, texts: int) -> None:
    """Prints a table with its caption above and an empty line after it; without rows only the caption.

    Args:
        console: The console.
        caption: May be empty.
        headings: Of the columns.
        rows: Of cells.
        texts: How many of the first columns are text, which may wrap; the others are numbers.
    """
    console.print(caption, soft_wrap=not console.is_terminal)
    if rows:
        show_rows(console, headings, rows, texts=texts)
    console.print()


def show_rows(console: Console, headings: Sequence[str], rows: Rows, *, texts: int = 1) -> None:
    """Prints a table in the widest form that there is room for, else row by row."""
    for heads, cells in _forms(headings, rows, texts):
        if sum(_least_widths(heads, cells, texts)) + _GAP * (len(heads) - 1) <= console.width:
            console.print(_drawn(heads, cells, texts))
            return
    for first, *rest in rows:
        console.print(first)
        facts = [f"{heading} {cell}" for heading, cell in zip(headings[1:], rest, strict=True) if cell]
        console.print(f"  {'; '.join(facts)}")


def counted(counts: Mapping[str, int]) -> str:
    """Counts in one line, such as `gaps 12, pairs 3,400`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _forms(headings: Sequence[str], rows: Rows, texts: int) -> Iterator[tuple[Sequence[str], Rows]]:
    """The table as it is; with its headings in several lines; with intervals below their numbers as well."""
    yield headings, rows
    yield _folded(headings, rows, texts), rows
    below = [[*row[:texts], *(cell.replace(_INTERVAL, "\n[") for cell in row[texts:])] for row in rows]
    yield _folded(headings, below, texts), below


def _folded(headings: Sequence[str], rows: Rows, texts: int) -> list[str]:
    """Headings of numbers, as wide as these or as their own longest word."""
    folded = []
    for place, heading in enumerate(headings):
        widest = max(_longest_word([heading]), *(_longest_line(row[place]) for row in rows))
        folded.append(heading if place < texts else fill(heading, widest))
    return folded


def _least_widths(headings: Sequence[str], rows: Rows, texts: int) -> list[int]:
    """Characters that each column needs so that no word is broken, and no number."""
    columns = [[heading, *(row[place] for row in rows)] for place, heading in enumerate(headings)]
    return [
        min(_LONGEST_WORD, _longest_word(cells)) if place < texts else max(map(_longest_line, cells))
        for place, cells in enumerate(columns)
    ]


def _drawn(headings: Sequence[str], rows: Rows, texts: int) -> Table:
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for place, (heading, least) in enumerate(zip(headings, _least_widths(headings, rows, texts), strict=True)):
        if place < texts:
            drawn.add_column(heading, overflow="fold", min_width=least)
        else:
            drawn.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    return drawn


def _longest_word(texts: Sequence[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=1)


def _longest_line(text: str) -> int:
    return max(map(len, text.splitlines()), default=1)
