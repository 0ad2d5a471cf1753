"""A file of JSON lines with the path of an image under `image`, relative to the file's folder:

{"image": "photos/0001.jpg"}
"""

from parityalign.core import Row, Source, SourceKind, UserError, parse_json
from parityalign.data.sources._lists import listed

KEY = "image"


def open_source(location: str) -> Source:
    """The images that the rows of a file name."""
    return listed(location, _image)


SOURCE = SourceKind(open_source)


def _image(line: str, where: str) -> str:
    values = parse_json(line, where)
    if not isinstance(values, dict):
        raise UserError(f"{where} should be an object with the key {KEY!r}, but is {line[:60]}")
    return Row(where, values).text(KEY)
