"""Helpers of the benchmark readers."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from parityalign.core import Question, Row, UserError, refuse_repeated


def by_id(rows: Sequence[Row], key: str) -> dict[str, Row]:
    """The rows by the id under a key.

    Raises:
        UserError: An id is given twice.
    """
    ids = [row.text(key) for row in rows]
    refuse_repeated(ids, rows[0].where)
    return dict(zip(ids, rows, strict=True))


def image_name(row: Row, key: str) -> str:
    """The image's name in a row of a Hugging Face copy; empty if there is no such column."""
    return row.text_or_empty(key) if key in row.values else ""


def image_path(folder: Path, name: str, ending: str = "") -> str:
    """The path of an image in a release; empty if the row names none.

    Links in the folder are the user's own and are followed; a name may not lead out of it.

    Raises:
        UserError: The name leads out of the folder.
    """
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise UserError(
            f"{folder}: an image is called {name!r}, which leads out of the folder; take the released files"
        )
    return str(folder / f"{name}{ending}") if name else ""


def first_there(folder: Path, names: Sequence[str]) -> Path:
    """The first of several names of a file that is in the folder; the first name of all if none is."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def parquet_alone(benchmark: str, hub: str) -> Callable[[Path], list[Question]]:
    """Reads the files of a benchmark that is released as Parquet only, which are read row by row: it refuses them.

    Args:
        benchmark: Its name for the message.
        hub: Where it is on the hub.
    """

    def refuse(folder: Path) -> list[Question]:
        raise UserError(
            f"{folder} has no Parquet files, and {benchmark} is released as these only; give hf:{hub}, or the folder "
            "of a download of it"
        )

    return refuse


def in_subset(name: str) -> Callable[[Question], bool]:
    """Tells whether a question is in the subset."""
    return lambda question: question.subset == name
