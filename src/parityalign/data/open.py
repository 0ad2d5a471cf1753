"""Opens an image source."""

from parityalign.config import problem_of, split_source
from parityalign.core import Source, SourceKind, UserError, described, load_part


def open_source(spec: str) -> Source:
    """Opens the image source `spec`.

    Raises:
        UserError: There is no such source, or a package that it needs is missing.
    """
    problem = problem_of(spec)
    if problem:
        raise UserError(f"the source of images {problem}")
    kind, location = split_source(spec)
    source = load_part("sources", kind, SourceKind).open(location)
    if not isinstance(source, Source):
        raise UserError(f"{described('sources', kind)} opened {location} as {source!r}. Expected: a Source.")
    return source
