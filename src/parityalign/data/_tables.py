"""Tables of texts with a header: CSV, the same with tabs, and workbooks (`.xlsx`), line by line."""

import csv
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, NamedTuple

from parityalign.core import Row, UserError, missing_package, open_given

WORKBOOK = ".xlsx"
_LARGEST_WORKBOOK = 512 * 2**20
"""Bytes that a workbook may have unpacked; openpyxl keeps all of its texts in memory."""
# What openpyxl raises about a file that is no workbook, or a broken one.
_BROKEN: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, ET.ParseError, EOFError, NotImplementedError)
_BROKEN += (ValueError, TypeError, LookupError, AttributeError, RuntimeError)


def is_text_table(path: Path) -> bool:
    """Whether a file is such a table, by its suffix."""
    return path.suffix.lower() in (".csv", ".tsv", WORKBOOK)


class Line(NamedTuple):
    """A line of a table."""

    where: str
    """File and place, for messages."""
    fields: list[str]
    """As many as the header has; empty where the cell is."""


def table_lines(path: Path) -> Iterator[Line]:
    """The header and then the other lines that are not empty.

    Raises:
        UserError: The file cannot be read, a line has more or fewer fields than the header, or a package is missing.
    """
    return _workbook_lines(path) if path.suffix.lower() == WORKBOOK else _csv_lines(path)


def table_rows(path: Path) -> Iterator[Row]:
    """The rows under the names that the header gives them; an empty field is null.

    Raises:
        UserError: As for `table_lines`.
    """
    lines = table_lines(path)
    header = next(lines, None)
    for place, line in enumerate(lines):
        fields = (field or None for field in line.fields)
        yield Row(line.where, dict(zip(header.fields if header else [], fields, strict=True)), place)


def _csv_lines(path: Path) -> Iterator[Line]:
    tabs = path.suffix.lower() == ".tsv"
    number, width = 0, 0
    try:
        with TextIOWrapper(open_given(path), encoding="utf-8-sig", newline="") as file:
            table = csv.reader(file, delimiter="\t" if tabs else ",", strict=True)
            for fields in filter(None, table):
                number, width = table.line_num, width or len(fields)
                if len(fields) != width:
                    raise UserError(
                        f"{path}, line {number} has {len(fields)} fields, and the header has {width}; a text with "
                        f"{'tabs' if tabs else 'commas'} or line ends stands between double quotes"
                    )
                yield Line(f"{path}, line {number}", fields)
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise UserError(f"{path} is not UTF-8 text: {problem}. Save it as CSV in UTF-8") from problem
    except csv.Error as problem:
        raise UserError(f"{path} is not CSV after line {number}: {problem}") from problem


def _workbook_lines(path: Path) -> Iterator[Line]:
    """The lines of a workbook's first sheet; formulas are what they came to when it was saved."""
    if find_spec("openpyxl") is None:
        raise missing_package(f"reading {path}", "openpyxl", "'parityalign[xlsx]'")
    import openpyxl  # noqa: PLC0415

    try:
        with open_given(path) as file:
            _refuse_huge(file, path)
            sheet = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets[0]
            sheet.reset_dimensions()  # what the file says of them may be wrong
            yield from _cut_to_header(sheet.iter_rows(values_only=True), path)
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror or problem}") from problem
    except _BROKEN as problem:
        raise UserError(f"cannot read {path}: it is no workbook, or is damaged: {problem}") from problem


def _refuse_huge(file: BinaryIO, path: Path) -> None:
    with zipfile.ZipFile(file) as packed:
        size = sum(part.file_size for part in packed.infolist())
    if size > _LARGEST_WORKBOOK:
        raise UserError(f"{path} has {size:,} bytes unpacked; at most {_LARGEST_WORKBOOK:,} are read. Save it as CSV")
    file.seek(0)


def _cut_to_header(rows: Iterator[tuple[object, ...]], path: Path) -> Iterator[Line]:
    width = 0
    for number, cells in enumerate(rows, 1):
        fields = [_cell_text(cell) for cell in cells]
        while fields and not fields[-1]:
            fields.pop()
        if not fields:
            continue
        width = width or len(fields)
        if len(fields) > width:
            raise UserError(f"{path}, row {number} has {len(fields)} cells, and the header has {width}")
        yield Line(f"{path}, row {number}", [*fields, *[""] * (width - len(fields))])


def _cell_text(cell: object) -> str:
    """A cell as it would be read: whole numbers are kept as floats in a workbook."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
