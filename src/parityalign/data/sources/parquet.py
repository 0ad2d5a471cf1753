"""A Parquet file with the bytes of images in a column, or a pattern such as `data/train-*.parquet` of several.

The column is `image`, or the only one that holds bytes; either plain bytes or, as in Hugging Face data sets,
`{"bytes": ..., "path": ...}`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from parityalign.core import Found, Source, SourceKind, UserError, missing_package, open_given
from parityalign.data.sources._shards import found_bytes, shards

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_COLUMN = "image"
_ROWS = 64
"""Rows in memory at a time."""
_BUFFER_BYTES = 1 << 20


def open_source(location: str) -> Source:
    """The images in Parquet files.

    Raises:
        UserError: The package pyarrow is missing.
    """
    if find_spec("pyarrow") is None:
        raise missing_package(f"reading {location}", "pyarrow", "'parityalign[datasets]'")
    return shards(location, _images, lambda path: _opened(path).metadata.num_rows)


SOURCE = SourceKind(open_source)


def _opened(path: Path) -> "pq.ParquetFile":
    import pyarrow.parquet as pq  # noqa: PLC0415

    with _readable(path):
        open_given(path).close()  # no pipe
        # Else a row group is loaded as a whole, and all images may be in one.
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa  # noqa: PLC0415

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as problem:  # ValueError: a text in it is not UTF-8
        raise UserError(f"cannot read the Parquet file {path}: {problem}") from problem


def _images(path: Path) -> Iterator[Found]:
    file = _opened(path)
    column = _column(file.schema_arrow, path)
    row = 0
    with _readable(path):
        for batch in file.iter_batches(batch_size=_ROWS, columns=[column]):
            for value in batch.column(0):
                content = value.as_py()
                yield found_bytes(f"{path}#{row}", content.get("bytes") if isinstance(content, dict) else content)
                row += 1


def _column(schema: "pa.Schema", path: Path) -> str:
    import pyarrow.types as kinds  # noqa: PLC0415

    def holds_bytes(kind: "pa.DataType") -> bool:
        if kinds.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))

    found = [field.name for field in schema if holds_bytes(field.type)]
    if _COLUMN in found or len(found) == 1:
        return _COLUMN if _COLUMN in found else found[0]
    raise UserError(
        f"{path}: expected a column {_COLUMN!r}, or one column, with the bytes of images; "
        f"found {', '.join(found) or 'none'} among {', '.join(schema.names)}"
    )
