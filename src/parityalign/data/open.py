"""Opens an image source."""

from parityalign.config import problem_of, split_source
from parityalign.core import Source, UserError, find_part


def open_source(spec: str) -> Source:
    """Opens the image source `spec`.

    Raises:
        UserError: There is no such source, or a package that it needs is missing.
    """
    problem = problem_of(spec)
    if problem:
        raise UserError(f"the source of images {problem}")
    kind, location = split_source(spec)
    source: Source = find_part("sources", kind).open_source(location)
    return source
