"""The pictures of an export, copied beside its rows, so that another machine finds them."""

from functools import cache
from pathlib import Path

from PIL import Image

from parityalign.core import Pair, UserError, WorkFailed, writing
from parityalign.data import Unfit, image_id, read_bytes


def picture_name(pair: Pair) -> str:
    """A picture's path in an export: by its identity, with the file's ending if that is one of pictures."""
    ending = Path(pair.image).suffix
    return f"images/{pair.image_id}{ending if ending.lower() in _endings() else ''}"


def picture_content(pair: Pair) -> bytes:
    """The file of a pair's picture as it is.

    Raises:
        UserError: It is another picture now.
        WorkFailed: It cannot be read.
    """
    try:
        content = read_bytes(Path(pair.image))
    except Unfit as unfit:
        raise WorkFailed(f"cannot read the image {pair.image}: {unfit}") from unfit
    if image_id(content) != pair.image_id:
        raise UserError(
            f"the image {pair.image} is not the one any more that pair {pair.pair_id} is about; put that back"
        )
    return content


def copy_picture(pair: Pair, folder: Path) -> None:
    """Copies a pair's picture into the folder of an export.

    Raises:
        UserError: It is another picture now.
        WorkFailed: It cannot be read, or the disk refused.
    """
    content, copy = picture_content(pair), folder / picture_name(pair)
    with writing(copy):
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(content)


@cache
def _endings() -> frozenset[str]:
    return frozenset(Image.registered_extensions())
