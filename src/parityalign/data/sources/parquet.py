"""A Parquet file with the bytes of images in a column, or a pattern such as `data/train-*.parquet` of several.

The column is `image`, or the only one that holds bytes; either plain bytes or, as in Hugging Face data sets,
`{"bytes": ..., "path": ...}`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from parityalign.core import Found, Source, SourceKind, UserError
from parityalign.data._parquet import open_parquet, readable_parquet, require_parquet
from parityalign.data.sources._shards import found_bytes, shards

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMN = "image"
_ROWS = 64
"""Rows in memory at a time."""


def open_source(location: str) -> Source:
    """The images in Parquet files.

    Raises:
        UserError: The package pyarrow is missing.
    """
    require_parquet(f"reading {location}")
    return shards(location, _images, lambda path: open_parquet(path).metadata.num_rows)


SOURCE = SourceKind(open_source)


def _images(path: Path) -> Iterator[Found]:
    file = open_parquet(path)
    column = _column(file.schema_arrow, path)
    row = 0
    with readable_parquet(path):
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
