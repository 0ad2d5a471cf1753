"""A text file with one path per line, relative to the file's folder:

photos/0001.jpg
photos/0002.png
"""

from parityalign.core import Source, SourceKind
from parityalign.data.sources._lists import listed


def open_source(location: str) -> Source:
    """The images that a text file names."""
    return listed(location, lambda line, _: line)


SOURCE = SourceKind(open_source)
