"""Opening Parquet files."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from parityalign.core import UserError, missing_package, open_given

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_BUFFER_BYTES = 1 << 20


def require_parquet(who: str) -> None:
    """Refuses to go on without the package that reads Parquet.

    Raises:
        UserError: The package pyarrow is missing.
    """
    if find_spec("pyarrow") is None:
        raise missing_package(who, "pyarrow", "'parityalign[datasets]'")


def open_parquet(path: Path) -> "pq.ParquetFile":
    """A Parquet file, of which rows are read as they are wanted.

    Raises:
        UserError: It cannot be read, is not a Parquet file, or the package pyarrow is missing.
    """
    require_parquet("reading Parquet")
    import pyarrow.parquet as pq  # noqa: PLC0415

    with readable_parquet(path):
        open_given(path).close()  # no pipe
        # Else a row group is loaded as a whole, and all images may be in one.
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)


@contextmanager
def readable_parquet(path: Path) -> Iterator[None]:
    """Says in words what is wrong with a Parquet file that is being read."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        yield
    except OSError as problem:
        raise UserError(f"cannot read the Parquet file {path}: {problem.strerror or problem}") from problem
    except (ValueError, pa.ArrowException) as problem:  # ValueError: a text in it is not UTF-8
        raise UserError(
            f"cannot read the Parquet file {path}: it is not a Parquet file, or is damaged: {problem}"
        ) from problem
